// SPDX-License-Identifier: GPL-3.0-or-later

import { api } from "../../scripts/api.js";

// Puts a file into ComfyUI's input folder; resolves to the name that it has there.
export async function upload(file) {
  const body = new FormData();
  body.append("image", file); // the host's name for any file it is sent
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) throw new Error(`${file.name} was not uploaded: ${answer.status} ${answer.statusText}`);
  return (await answer.json()).name;
}
