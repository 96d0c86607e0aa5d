// @ts-check
// Elements of the page, and the marker that each mask method has everywhere on it.

const SHAPES = [
  "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z", // circle
  "M-3.6 -3.6H3.6V3.6H-3.6Z", // square
  "M0 -5L4.4 0L0 5L-4.4 0Z", // diamond
  "M0 -4.6L4.6 3.6H-4.6Z", // triangle
  "M0 4.6L4.6 -3.6H-4.6Z", // triangle upside down
  "M-1.6 -4.6H1.6V-1.6H4.6V1.6H1.6V4.6H-1.6V1.6H-4.6V-1.6H-1.6Z", // plus
];
/** @type {Record<string, string>} */
const MARKS = {
  none: "M0 -8L2.2 -2.6L7.8 -2.4L3.4 1.2L4.8 6.6L0 3.5L-4.8 6.6L-3.4 1.2L-7.8 -2.4L-2.2 -2.6Z",
  oracle: "M0 -8L4.6 0L0 8L-4.6 0Z",
};
const CROSS = "M-3.6 -3.6L3.6 3.6M-3.6 3.6L3.6 -3.6";

/**
 * An element with attributes and children; texts become text nodes, never markup.
 * @param {string} tag
 * @param {Record<string, any>} attributes `onclick` and the like are listeners; null and false: none
 * @param {...(Node | string | null)} children
 * @returns {any} an HTMLElement
 */
function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/**
 * The same in SVG.
 * @param {string} tag
 * @param {Record<string, any>} attributes
 * @param {...(Node | string | null)} children
 * @returns {SVGElement}
 */
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** @template {Element} E @param {E} element @param {Record<string, any>} attributes
 * @param {(Node | string | null)[]} children @returns {E} */
function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * Class and path of a marker: by number for methods, by name for single marks.
 * @param {number | string} look
 */
function marker(look) {
  if (typeof look === "number") {
    return { kind: `look-${look % SHAPES.length}`, path: SHAPES[look % SHAPES.length] };
  }
  return { kind: `mark mark-${look in MARKS ? look : "cross"}`, path: MARKS[look] ?? CROSS };
}

/** A small marker for captions. @param {number | string} look */
function swatch(look) {
  const { kind, path } = marker(look);
  const attributes = { class: `swatch ${kind}`, viewBox: "-9 -9 18 18", "aria-hidden": "true" };
  return svg("svg", attributes, svg("path", { d: path }));
}

/** A number in at most four digits. @param {number} number */
const shown = (number) => String(Number(number.toPrecision(4)));
/** A score; a dash where there is none. @param {number | null | undefined} score */
const scoreText = (score) => (score === null || score === undefined ? "–" : score.toFixed(3));
