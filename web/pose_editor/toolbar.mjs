// SPDX-License-Identifier: GPL-3.0-or-later
// The row above the stage: history, how joints move, zoom, help, done.

import { button, html, set } from "./dom.mjs";

export function toolbar(editor, title) {
  const { store } = editor;
  const undo = button({ symbol: "undo", title: "Undo", onclick: () => store.undo() });
  const redo = button({ symbol: "redo", title: "Redo", onclick: () => store.redo() });
  const follow = button({
    symbol: "children", text: "Children follow", class: "pt-toggle",
    title: "What hangs on a joint comes along (C; for one drag: Alt)",
    onclick: () => store.setOption("follow", !store.options.follow),
  });
  const rigid = button({
    symbol: "length", text: "Keep bone length", class: "pt-toggle",
    title: "A joint goes round its parent (B; for one drag: Shift)",
    onclick: () => store.setOption("rigid", !store.options.rigid),
  });
  const percent = button({ text: "100 %", title: "The whole canvas (0)", class: "pt-zoom",
    onclick: () => editor.stage.fit() });
  const element = html("header", { class: "pt-toolbar" },
    html("h1", {}, title),
    html("div", { class: "pt-group" }, undo, redo),
    html("div", { class: "pt-group" }, follow, rigid),
    html("div", { class: "pt-space" }),
    html("div", { class: "pt-group" },
      button({ symbol: "zoomOut", title: "Zoom out (−)", onclick: () => editor.zoomBy(0.8) }),
      percent,
      button({ symbol: "zoomIn", title: "Zoom in (+)", onclick: () => editor.zoomBy(1.25) })),
    button({ symbol: "help", title: "Keys and gestures (?)", onclick: () => editor.help.toggle() }),
    button({ text: "Done", title: "Close the editor (Esc). All changes are kept.",
      class: "pt-primary", onclick: () => editor.close() }),
  );
  const render = () => {
    undo.disabled = !store.history.canUndo;
    redo.disabled = !store.history.canRedo;
    set(undo, { title: `Undo ${store.history.undoLabel ?? ""} (Ctrl+Z)`.replace("  ", " ") });
    set(redo, { title: `Redo ${store.history.redoLabel ?? ""} (Ctrl+Y)`.replace("  ", " ") });
    set(follow, { "aria-pressed": store.options.follow });
    set(rigid, { "aria-pressed": store.options.rigid });
    percent.firstChild.textContent = `${Math.round(editor.stage.view.scale * 100)} %`;
  };
  return { element, render };
}
