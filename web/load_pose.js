// SPDX-License-Identifier: GPL-3.0-or-later
// A button on Load Pose that puts a file of keypoints into ComfyUI's input folder and chooses it.
// The host's own upload buttons take pictures, sounds and videos only.

import { app } from "../../scripts/app.js";
import { speak } from "./graph.mjs";
import { t } from "./texts.mjs";
import { upload } from "./upload.mjs";

const ACCEPTED = ".json,.txt,.csv";

function choose(combo, name) {
  const names = combo.options.values;
  if (!names.includes(name)) names.push(name);
  combo.value = name;
  combo.callback?.(name);
}

function openFile(node, combo) {
  const input = document.createElement("input");
  input.type = "file";
  input.accept = ACCEPTED;
  input.onchange = async () => {
    try {
      choose(combo, await upload(input.files[0]));
    } catch (error) {
      app.extensionManager.toast.add({
        severity: "error", summary: node.title, detail: error.message, life: 8000,
      });
    }
  };
  input.click();
}

app.registerExtension({
  name: "PoseTransfer.LoadPose",
  nodeCreated(node) {
    if (node.comfyClass !== "PoseTransferLoadPose") return;
    const combo = node.widgets.find((widget) => widget.name === "file");
    speak();
    const choose = () => openFile(node, combo);
    const button = node.addWidget("button", t("upload.pose_file"), null, choose);
    button.serialize = false; // it has no value to keep in a workflow
  },
});
