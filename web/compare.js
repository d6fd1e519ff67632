// SPDX-License-Identifier: GPL-3.0-or-later
// Gives Compare Poses its slider. The only module of it that knows ComfyUI.

import { app } from "../../scripts/app.js";
import { CompareWidget } from "./compare/widget.mjs";
import { addStyle, changed, outputsOf, passWheelOn, speak, view } from "./graph.mjs";

const NODE = "PoseTransferCompare";
const MIN_HEIGHT = 260;
const NEW_SIZE = [340, 520]; // of a node that is put into a graph

const made = []; // widgets since the last workflow was opened

function addComparison(node) {
  speak();
  let ran; // what the node sent last
  const widget = new CompareWidget({
    outputs: () => ran ?? outputsOf(node),
    view,
    changed: () => changed(node),
    warn: (detail) => app.extensionManager.toast.add({
      severity: "error", summary: node.title, detail, life: 8000,
    }),
  });
  const { onExecuted } = node;
  node.onExecuted = function executed(output) {
    onExecuted?.call(this, output);
    ran = output;
    widget.show();
  };
  made.push(widget);
  passWheelOn(widget.element);
  node.addDOMWidget("comparison", "POSE_TRANSFER_COMPARISON", widget.element, {
    getValue: () => widget.value,
    setValue: (value) => { widget.value = value; },
    getMinHeight: () => MIN_HEIGHT,
    hideOnZoom: false,
    serialize: false, // the workflow keeps which pictures are compared, the node itself is not told
  });
  node.setSize(NEW_SIZE.map((side, axis) => Math.max(side, node.size[axis])));
}

app.registerExtension({
  name: "PoseTransfer.Compare",
  setup: () => addStyle(new URL("./compare/style.css", import.meta.url)),
  nodeCreated(node) {
    if (node.comfyClass === NODE) addComparison(node);
  },
  // Right after this the host gives a workflow that was open before the outputs of its nodes back.
  afterConfigureGraph: () => setTimeout(() => made.splice(0).forEach((widget) => widget.show())),
});
