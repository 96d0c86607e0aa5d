// @ts-check
// The view of a single sample: its maps, masks and edits in columns, its Dice and scores below.

const DETAIL = 512; // longer side in pixels at which its maps are drawn
const detail = {
  dialog: /** @type {HTMLDialogElement} */ (document.getElementById("detail")),
  index: /** @type {number | null} */ (null),
  update: /** @type {(() => void) | null} */ (null),
};
/** @type {Record<string, string>} */
const OTHERS = { none: "edit without a mask", oracle: "edit under the annotated mask" };
/** Why an edit's threshold is not the mask's. */
const EDITED = "Edits were made at fewer thresholds than masks were scored at: shown is each method's edit at the best of those, and the slider does not change it.";

/** Show the sample that the address names, or none. */
function route() {
  const wanted = location.hash.startsWith("#sample-") ? location.hash.slice(8) : null;
  if (wanted === null) {
    if (detail.dialog.open) detail.dialog.close();
    return;
  }
  let id = wanted;
  try {
    id = decodeURIComponent(wanted);
  } catch { /* not written by this page: taken as it is */ }
  openDetail(report.samples.findIndex((sample) => sample.id === id), id);
}

/** @param {number} index of the sample, -1 where there is none of that id @param {string} id */
function openDetail(index, id) {
  const { dialog } = detail;
  detail.index = index;
  if (index < 0) {
    detail.update = null;
    dialog.replaceChildren(detailHead(`No sample ${id}`, null), h("p", {}, "This report has no sample of that name."));
  } else {
    dialog.replaceChildren(...detailOf(index));
    detail.update();
  }
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("h2").focus();
  dialog.scrollTop = 0;
}

/** @param {string} title @param {string | null} position */
function detailHead(title, position) {
  const walk = (/** @type {number} */ by, /** @type {string} */ label, /** @type {string} */ text) =>
    h("button", { type: "button", "aria-label": label, onclick: () => walkDetail(by) }, text);
  return h("header", { class: "detail-head" },
    h("h2", { id: "detail-title", tabindex: -1 }, title),
    h("div", { class: "buttons" },
      position === null ? null : h("span", { class: "quiet" }, position),
      position === null ? null : walk(-1, "previous sample", "←"),
      position === null ? null : walk(1, "next sample", "→"),
      h("button", { type: "button", "aria-label": "close", onclick: () => detail.dialog.close() }, "✕")));
}

/** The samples that arrows walk through: those shown, or all if this one is filtered out. */
const walked = () => (order.includes(detail.index) ? order : report.samples.map((_, i) => i));

/** @param {number} by */
function walkDetail(by) {
  const through = walked();
  const next = through[through.indexOf(detail.index) + by];
  if (next === undefined) return;
  history.replaceState(null, "", address(report.samples[next]));
  route();
}

/** @param {number} index @returns {Node[]} */
function detailOf(index) {
  const tiles = new Tiles(index, DETAIL);
  const { sample } = tiles;
  /** @type {(() => void)[]} */
  const updates = [];
  const through = walked();
  const position = `${through.indexOf(index) + 1} of ${through.length}`;
  const columns = h("div", { class: "columns" }, ...sampleColumns(tiles, updates));
  tiles.failed = (message) => columns.before(h("p", { class: "note" }, `Maps and masks cannot be drawn: ${message}.`));
  const below = h("div", { class: "below" });
  const markCurves = diceCurves(sample, below);
  if (markCurves) updates.push(markCurves);
  load(index).then(({ scores, candidates }) => {
    scoreTable(scores, below);
    for (const [method, boxes] of Object.entries(candidates)) below.append(candidateBoxes(tiles, method, boxes));
  }, () => {});
  detail.update = () => {
    for (const update of updates) update();
    tiles.draw();
  };
  dropDetailSlider();
  const edits = Object.keys(sample.edits).length;
  return [
    detailHead(sample.id, position),
    types.length > 1 ? h("p", { class: "type" }, typeLabels[sample.type]) : null,
    prompts(sample),
    methods.length ? thresholdControl("detail") : null,
    columns, ...editorSections(tiles), below,
    methods.length ? h("p", { class: "note" }, LEGENDS.mask, " Dice as scored at full size. ", edits ? EDITED : "") : null,
  ].filter(Boolean);
}

/** @param {string} kind @param {Node} box @param {...(Node | string)} caption */
const figure = (kind, box, ...caption) => h("figure", { class: kind }, box, h("figcaption", {}, ...caption));

/** The edits that no method's column shows. @param {Sample} sample */
const otherEdits = (sample) =>
  Object.entries(sample.edits).filter(([name]) => !methods.some(({ method }) => method === name));

/** @param {Tiles} tiles @param {(() => void)[]} updates @returns {HTMLElement[]} */
function sampleColumns(tiles, updates) {
  const { sample } = tiles;
  const column = (/** @type {(Node | string)[]} */ title, /** @type {Node[]} */ ...figures) =>
    h("section", { class: "column" }, h("h3", {}, ...title), ...figures);
  const others = otherEdits(sample);
  const byEditor = others.some(([name]) => editorOf(name));
  const first = column(["sample"],
    figure("top", tiles.picture(sample.source, "source"), "source"),
    ...(sample.annotated ? [figure("middle", tiles.annotation(), "annotated mask")] : []),
    ...(sample.target && !byEditor ? [figure("bottom", tiles.picture(sample.target, "true edit"), "true edit")] : []));
  const maps = methods.map((method, look) => {
    const name = method.method;
    const threshold = h("span");
    const [caption, update] = diceCaption(sample, look, method);
    updates.push(update, () => { threshold.textContent = `mask at ${thresholdText(method)}`; });
    return column([swatch(look), name],
      figure("top", tiles.map(method, "heat"), "soft map"),
      figure("middle", tiles.map(method, "mask"), threshold, ...caption),
      ...(sample.edits[name] ? [figure("bottom", tiles.picture(sample.edits[name], `edit: ${name}`), `edit at ${shown(method.edited)}`)] : []));
  });
  const alone = others.filter(([name]) => !editorOf(name));
  const pairs = alone.filter((_, i) => i % 2 === 0).map((_, i) => alone.slice(2 * i, 2 * i + 2));
  return [first, ...maps, ...pairs.map((pair) =>
    column([methods.length ? "for comparison" : "edits"], ...pair.map(([name, file], at) =>
      figure(["middle", "bottom"][at], tiles.picture(file, `edit: ${editLabel(name)}`), OTHERS[name] ?? editLabel(name)))))];
}

/** Where there are several editors, the edits of each. @param {Tiles} tiles @returns {HTMLElement[]} */
function editorSections(tiles) {
  const { sample } = tiles;
  const others = otherEdits(sample);
  const editors = [...new Set(others.map(([name]) => editorOf(name)).filter(Boolean))];
  return editors.map((editor) =>
    h("section", {}, h("h3", {}, `Edits by ${editor}`), h("div", { class: "edits" },
      ...(sample.target ? [figure("", tiles.picture(sample.target, "true edit"), "true edit")] : []),
      ...others.filter(([name]) => editorOf(name) === editor).map(([name, file]) => {
        const [mask, threshold] = [editLabel(maskOf(name)), editThreshold(name)];
        const caption = threshold === null ? mask : `${mask} at ${shown(threshold)}`;
        return figure("", tiles.picture(file, `edit: ${editLabel(name)}`), caption);
      }))));
}

/** This sample's Dice over the sweeps, every method from its first to its last threshold. Returns
 * what marks the thresholds of now, or null where there is nothing to draw.
 * @param {Sample} sample @param {HTMLElement} host */
function diceCurves(sample, host) {
  const scored = methods.filter(({ method }) => sample.dice[method]);
  if (!scored.length || steps < 2) return null;
  const [left, right, top, bottom] = [34, 470, 10, 200];
  const x = (/** @type {number} */ share) => left + share * (right - left);
  const y = (/** @type {number} */ dice) => bottom - dice * (bottom - top);
  const root = svg("svg", { viewBox: "0 0 480 240", role: "group", "aria-label": "Dice over the threshold" });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    root.append(
      svg("path", { class: "grid", d: `M${left} ${y(value)}H${right}M${x(value)} ${top}V${bottom}` }),
      svg("text", { class: "tick", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)),
      svg("text", { class: "tick", x: x(value), y: bottom + 16, "text-anchor": "middle" }, String(100 * value)));
  }
  root.append(svg("text", { x: x(0.5), y: bottom + 34, "text-anchor": "middle" }, "threshold, % of the sweep"));
  /** @type {[Method, number, SVGElement][]} */
  const points = [];
  for (const method of scored) {
    const { kind, path } = marker(methods.indexOf(method));
    const group = svg("g", { class: `series ${kind}` });
    const line = svg("path", { class: "line" });
    group.append(line);
    const places = sample.dice[method.method].flatMap((dice, i) => (dice === null ? [] : [i]));
    const spots = places.map((i) => `${x(part(method, i))} ${y(sample.dice[method.method][i])}`);
    line.setAttribute("d", spots.map((spot, i) => `${i ? "L" : "M"}${spot}`).join(""));
    for (const [n, i] of places.entries()) {
      const name = `${method.method} at ${shown(method.thresholds[i])}`;
      const values = `threshold, % of the sweep ${shown(100 * part(method, i))}, Dice ${shown(sample.dice[method.method][i])}`;
      const best = i === method.chosen;
      const point = svg("g", { class: "point", transform: `translate(${spots[n]})`, role: "img", tabindex: -1,
        "aria-label": `${name}, ${values}${best ? ", its best threshold over all samples" : ""}` },
        best ? svg("circle", { class: "ring", r: 8.5 }) : null,
        svg("circle", { class: "now", r: 6.5 }), svg("path", { class: "symbol", d: path }));
      points.push([method, i, point]);
      group.append(point);
    }
    root.append(group);
  }
  const plot = h("div", { class: "plot" }, root);
  host.append(h("figure", { class: "figure" }, h("h3", {}, "Dice over the threshold"), plot));
  enliven(plot);
  return () => {
    for (const [method, i, point] of points) point.classList.toggle("here", place(method) === i);
  };
}

/** The boxes that a method has painted, the best of each point drawn stronger, and the edit that it
 * keeps. @param {Tiles} tiles @param {string} method @param {Candidates} candidates */
function candidateBoxes(tiles, method, { points, boxes, values, best, kept, by, edit }) {
  const root = svg("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", class: "boxes", role: "img",
    "aria-label": `${method}: ${boxes.flat().length} boxes around ${points.length} points` });
  const sizes = boxes[0].length;
  const box = (/** @type {number} */ p, /** @type {number} */ s) => {
    const [x1, y1, x2, y2] = boxes[p][s];
    const kind = p * sizes + s === kept ? "kept" : s === best[p] ? "best" : "";
    return svg("rect", { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: kind },
      svg("title", {}, `point ${p + 1}, ${by} ${values[p][s].toFixed(4)}`));
  };
  const all = boxes.flatMap((of, p) => of.map((_, s) => box(p, s)));
  const rank = (/** @type {SVGElement} */ rect) => ["", "best", "kept"].indexOf(rect.getAttribute("class"));
  root.append(...all.sort((one, other) => rank(one) - rank(other)),
    ...points.map(([x, y]) => svg("path", { class: "anchor", d: `M${x} ${y}h0` })));
  const at = [Math.floor(kept / sizes), kept % sizes];
  const rows = points.map((_, p) => h("tr", p === at[0] ? { class: "kept" } : {},
    h("th", { class: "text key", scope: "row" }, `point ${p + 1}`),
    ...values[p].map((value, s) => h("td", { class: s === best[p] && sizes > 1 ? "best" : "" }, value.toFixed(4)))));
  return h("figure", { class: "figure candidates" }, h("h3", {}, `Boxes painted for ${method}`),
    h("div", { class: "tried" },
      figure("", tiles.picture(tiles.sample.source, "source", root), "all boxes; strong: the best of each point; orange: the one that is kept"),
      figure("", tiles.picture(edit, `the edit that ${method} keeps`), `the edit that is kept, ${by} ${values[at[0]][at[1]].toFixed(4)}`)),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { class: "text key", scope: "col" }, "Point"),
        ...boxes[0].map((_, s) => h("th", { scope: "col" }, sizes > 1 ? `${by}, size ${s + 1}` : by)))),
      h("tbody", {}, ...rows))));
}

/** @param {Record<string, (number | null)[]>} scores @param {HTMLElement} host */
function scoreTable(scores, host) {
  const rows = Object.entries(scores);
  if (!rows.length || !report.metrics.length) return;
  const cell = (/** @type {number | null} */ value, /** @type {{digits: number}} */ { digits }) =>
    h("td", {}, value === null ? "–" : value.toFixed(digits));
  host.append(h("figure", { class: "figure" }, h("h3", {}, "Scores of the edits shown"), h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { class: "text key", scope: "col" }, "Mask"), ...report.metrics.map(({ label }) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, ...rows.map(([name, values]) => h("tr", {},
      h("th", { class: "text key", scope: "row" }, swatch(editLook(name)), " ", editLabel(name)),
      ...values.map((value, i) => cell(value, report.metrics[i])))))))));
}
