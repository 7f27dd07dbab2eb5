// Making elements. Texts become text nodes, always: nothing here, or anywhere in these pages, parses markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `props`: `class`, `text`, `on` ({event: listener}), `data` ({name: value}); everything else is an
 * attribute, left out where it is null, undefined or false. Children may be elements, strings or nothing.
 */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.setAttribute("class", value);
    else if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

export function show(element, shown) {
  element.hidden = !shown;
}

/** A drawing of 16 x 16, beside words that say the same. */
const DRAWINGS = {
  passed: ["M3.500 8.500l3 3 6-7"],
  repaired: ["M13 5.500A5.500 5.500 0 1 0 13.400 9.500", "M13.400 2.300v3.400H10"],
  refused: ["M8 2.200a5.800 5.800 0 1 0 0 11.600A5.800 5.800 0 0 0 8 2.200z", "M4.200 8h7.600"],
  failed: ["M8 1.900 14.400 13.400H1.600z", "M8 6.200v3.400", "M8 11.500v.1"],
  not_guarded: ["M8 2.200a5.800 5.800 0 1 0 0 11.600A5.800 5.800 0 0 0 8 2.200z", "M6.300 6.300a1.750 1.750 0 1 1 2.400 1.700c-.5.2-.7.5-.7 1v.2", "M8 11.300v.1"],
  error: ["M4 4l8 8", "M12 4l-8 8"],
  stopped: ["M4.500 4.500h7v7h-7z"],
  image: ["M2.500 3.500h11v9h-11z", "M2.700 11l3.300-3.500 2.500 2.500 1.700-1.700 3.200 3", "M10.500 6.200v.1"],
};

export function icon(name) {
  const paths = (DRAWINGS[name] ?? []).map((d) => svg("path", { d }));
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, ...paths);
}
