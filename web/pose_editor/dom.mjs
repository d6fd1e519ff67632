// SPDX-License-Identifier: GPL-3.0-or-later
// Elements in one expression.

const SVG = "http://www.w3.org/2000/svg";

// `on*` properties become listeners, `true` an empty attribute; null and false are left out.
function make(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const html = (tag, properties = {}, ...children) =>
  make(document.createElement(tag), properties, children);

export const svg = (tag, properties = {}, ...children) =>
  make(document.createElementNS(SVG, tag), properties, children);

// Sets only what differs: writing an attribute costs layout even where it stays the same.
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    const text = String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

// Line drawings on a 16 x 16 grid.
const ICONS = {
  add: "M8 3v10M3 8h10",
  children: "M4 3v6a2 2 0 0 0 2 2h6M9.5 8.5 12 11l-2.5 2.5",
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M6 6h7v7H6zM3 10V3h7",
  code: "M5.5 4 2 8l3.5 4M10.5 4 14 8l-3.5 4",
  download: "M8 2.8v7.7M5.2 7.9 8 10.7l2.8-2.8M3 10.5V13h10v-2.5",
  duplicate: "M6 6h7v7H6zM3 10V3h7M9.5 8v3M8 9.5h3",
  eye: "M1.5 8S4 3.8 8 3.8 14.5 8 14.5 8 12 12.2 8 12.2 1.5 8 1.5 8zM8 6.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6z",
  hidden: "M2 2l12 12M6.2 4.1A6 6 0 0 1 8 3.8C12 3.8 14.5 8 14.5 8a12 12 0 0 1-2 2.5M4 5.3A12 12 0 0 0 1.5 8S4 12.2 8 12.2c.9 0 1.7-.2 2.4-.5",
  fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  help: "M6 6.2a2 2 0 1 1 2.9 1.8c-.6.3-.9.7-.9 1.5M8 11.8v.2",
  length: "M3.5 12.5l9-9M2 11l3 3M11 2l3 3",
  lock: "M4 7.5h8V13H4zM5.7 7.5V5.3a2.3 2.3 0 0 1 4.6 0v2.2",
  mirror: "M8 2v12M6 4.5 2 11.5h4zM10 4.5l4 7h-4z",
  next: "M6 3.5 10.5 8 6 12.5",
  paste: "M5 3.5H3.5v10h9v-10H11M5.5 2.5h5v2.5h-5z",
  photo: "M2.5 3.5h11v9h-11zM2.5 11l3.2-3.4 2.5 2.6 2-1.8 3.3 3M10.6 6.1v.1",
  previous: "M10 3.5 5.5 8l4.5 4.5",
  redo: "M13 6H6.2a3.3 3.3 0 0 0 0 6.6H9M10.2 3.2 13 6l-2.8 2.8",
  remove: "M3 4.5h10M6.2 4.5V3h3.6v1.5M4.3 4.5l.6 8.5h6.2l.6-8.5",
  swap: "M3 5.5h9M9.5 3 12 5.5 9.5 8M13 10.5H4M6.5 8 4 10.5 6.5 13",
  undo: "M3 6h6.8a3.3 3.3 0 0 1 0 6.6H7M5.8 3.2 3 6l2.8 2.8",
  upload: "M8 10.5V3M5.2 5.6 8 2.8l2.8 2.8M3 10.5V13h10v-2.5",
  wired: "M1.8 8h3.4M10.8 8h3.4M5.2 8a2.8 2.8 0 1 0 5.6 0 2.8 2.8 0 1 0-5.6 0",
  zoomIn: "M8 3v10M3 8h10",
  zoomOut: "M3 8h10",
};

export const icon = (name) =>
  svg("svg", { viewBox: "0 0 16 16", class: "pt-icon", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] }));

// A button with an icon, a text, or both. `title` is its tooltip and, without a text, its name.
export function button({ symbol, text, title, onclick, ...more }) {
  const classes = ["pt-button", text ? null : "pt-square", more.class].filter(Boolean).join(" ");
  return html(
    "button",
    { type: "button", title, "aria-label": text ? null : title, onclick, ...more, class: classes },
    symbol ? icon(symbol) : null, text ? html("span", {}, text) : null,
  );
}
