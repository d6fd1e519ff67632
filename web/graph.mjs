// SPDX-License-Identifier: GPL-3.0-or-later
// What the pack's widgets need of ComfyUI's graph and server.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { setLanguage } from "./texts.mjs";

// Where a file is served that a node names: { filename, subfolder, type }.
export const view = (file) => api.apiURL(`/view?${new URLSearchParams(file)}`);

// The pack's texts in the language that the artist chose. Called for each node that is made:
// ComfyUI makes all nodes anew when another language is chosen.
export const speak = () => setLanguage(app.extensionManager.setting.get("Comfy.Locale"));

export function addStyle(url) {
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = url;
  document.head.append(style);
}

// Without Vue nodes the graph lies beside a widget's element, not around it.
export function passWheelOn(element) {
  element.addEventListener("wheel", (event) => {
    if (!window.LiteGraph.vueNodesMode) app.canvas.processMouseWheel(event);
  });
}

// A value that the workflow keeps was changed: a step of the host's undo, the workflow is marked as
// modified, and "run on change" starts.
export function changed(node) {
  node.graph?.setDirtyCanvas(true, true);
  app.extensionManager.workflow.activeWorkflow?.changeTracker?.captureCanvasState();
}

// What a node sent at its last run, as long as the page lives. Nodes of subgraphs are filed under
// their graph.
export function outputsOf(node) {
  const inRoot = !node.graph || node.graph === (app.rootGraph ?? app.graph);
  return app.nodeOutputs?.[inRoot ? node.id : `${node.graph.id}:${node.id}`];
}
