// SPDX-License-Identifier: GPL-3.0-or-later

import { api } from "../../scripts/api.js";
import { t } from "./texts.mjs";

// Puts a file into ComfyUI's input folder; resolves to the name that it has there.
export async function upload(file) {
  const body = new FormData();
  body.append("image", file); // the host's name for any file it is sent
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) {
    const reason = `${answer.status} ${answer.statusText}`;
    throw new Error(t("upload.failed", { file: file.name, reason }));
  }
  return (await answer.json()).name;
}
