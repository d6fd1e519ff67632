// SPDX-License-Identifier: GPL-3.0-or-later

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import test from "node:test";

const WEB = new URL("../../web/", import.meta.url);
const MODULES = readdirSync(WEB, { recursive: true })
  .map((path) => path.replaceAll("\\", "/")).filter((path) => /\.m?js$/.test(path));
const read = (path) => readFileSync(new URL(path, WEB), "utf8");

test("modules run as they are: every import is a file beside them, or the host's", () => {
  const host = ["../../scripts/app.js", "../../scripts/api.js"];
  for (const path of MODULES) {
    for (const [, name] of read(path).matchAll(/^(?:import|export)\b[^"]*?"([^"]+)";$/gm)) {
      if (host.includes(name)) continue;
      assert.ok(/^\.\.?\//.test(name), `${path}: ${name}`);
      assert.ok(existsSync(new URL(name, new URL(path, WEB))), `${path}: ${name}`);
    }
  }
});

test("nothing comes from the network but what ComfyUI itself serves", () => {
  const styles = readdirSync(WEB, { recursive: true }).filter((path) => path.endsWith(".css"));
  for (const path of [...MODULES, ...styles]) {
    const addresses = read(path).match(/\b(?:https?|wss?):\/\/[^"'\s)]*|url\(["']?\/\/|["']\/\//g) ?? [];
    assert.deepEqual(addresses.filter((at) => at !== "http://www.w3.org/2000/svg"), [], path);
  }
});

test("ComfyUI loads each .js of the folder as an extension, so that only extensions end so", () => {
  for (const path of MODULES.filter((name) => name.endsWith(".js"))) {
    assert.ok(!path.includes("/"), path);
    assert.match(read(path), /\bapp\.registerExtension\(/, path);
  }
});

test("the editor and the slider know nothing of ComfyUI but what they are given", () => {
  for (const path of MODULES.filter((name) => name.includes("/"))) {
    assert.doesNotMatch(read(path), /scripts\/(?:app|api)\.js|\bLiteGraph\b|\bwindow\.app\b/, path);
  }
});
