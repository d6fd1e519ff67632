// SPDX-License-Identifier: GPL-3.0-or-later
// Makes the pose editor the widget of Edit Pose. The only module of it that knows ComfyUI.

import { app } from "../../scripts/app.js";
import { addStyle, changed, outputsOf, passWheelOn, speak, view } from "./graph.mjs";
import { PoseWidget } from "./pose_editor/node_widget.mjs";
import { upload } from "./upload.mjs";

const TYPE = "POSE_TRANSFER_EDITOR"; // the widgetType of nodes/edit_pose.py
const MIN_HEIGHT = 220;

const widgets = new WeakMap(); // node -> PoseWidget

// The host's undo listens to the whole window before any element can. This is its own switch for
// editors that cover the graph; another pack's may be in it already.
function guard(isOpen) {
  const Host = app.constructor;
  if (isOpen) {
    guard.before = Host.maskeditor_is_opended;
    Host.maskeditor_is_opended = () => true;
  } else {
    Host.maskeditor_is_opended = guard.before;
  }
}

function poseWidget(node, name) {
  speak();
  let ran; // what the node sent last
  let key;
  const widget = new PoseWidget({
    // Kept, for a node that the host took out of its graph no longer knows where it was.
    key: () => (node.graph && (key = `${node.graph.id}/${node.id}`)) ?? key,
    title: () => node.title,
    outputs: () => ran ?? outputsOf(node),
    image: (file) => view(file),
    address: (file) => view({ filename: file, type: "input" }),
    upload, guard,
    changed: () => changed(node),
  });
  widgets.set(node, widget);
  const { onExecuted } = node;
  node.onExecuted = function executed(output) {
    onExecuted?.call(this, output);
    ran = output;
    widget.show();
  };
  passWheelOn(widget.element);
  return node.addDOMWidget(name, TYPE, widget.element, {
    getValue: () => widget.value,
    setValue: (value) => { widget.value = value; },
    getMinHeight: () => MIN_HEIGHT,
    hideOnZoom: false,
    socketless: true,
  });
}

function find(key) {
  const [graphId, nodeId] = key.split("/");
  const root = app.rootGraph ?? app.graph;
  const graph = String(root.id) === graphId ? root : root.subgraphs?.get(graphId);
  const node = graph?.getNodeById(nodeId) ?? graph?.getNodeById(Number(nodeId));
  return node && widgets.get(node);
}

app.registerExtension({
  name: "PoseTransfer.PoseEditor",
  setup: () => addStyle(new URL("./pose_editor/style.css", import.meta.url)),
  getCustomWidgets: () => ({
    [TYPE]: (node, name) => ({
      widget: poseWidget(node, name), minWidth: 260, minHeight: 360,
    }),
  }),
  afterConfigureGraph: () => PoseWidget.reconnect(find),
});
