// The gallery: which samples are shown in which order, their cards, and the view of a single one.
// All text goes into the page as text nodes: prompts and ids are never markup.

const report = JSON.parse(document.getElementById("data").textContent);
const heat = bytes(report.heat);
const methods = report.methods;
const steps = Math.max(1, ...methods.map(({ thresholds }) => thresholds.length));
const types = [...new Set(report.samples.map(({ type }) => type))].sort((a, b) => a - b);
const CARD = 160; // longer side in pixels at which a card's maps are drawn
const DETAIL = 512;
const PAGE = innerWidth > 760 ? 24 : 8; // cards added at a time

/** step: place of all methods in their sweeps, null: each at its chosen threshold. */
const state = { step: null, view: "mask", type: "", words: [], sort: "id", by: 0, grouped: true };
if (!methods.length) state.view = "edit";

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// ---- thresholds -------------------------------------------------------------------------------

/** The place of a method's threshold under the slider: the one nearest to that part of its sweep. */
function place(method, step = state.step) {
  if (step === null || steps < 2) return method.chosen;
  const cuts = method.thresholds;
  const wanted = cuts[0] + (step / (steps - 1)) * (cuts.at(-1) - cuts[0]);
  let best = 0;
  cuts.forEach((cut, i) => {
    if (Math.abs(cut - wanted) < Math.abs(cuts[best] - wanted)) best = i;
  });
  return best;
}

const cutText = (method) => shown(method.thresholds[place(method)]);
const part = (method, at) => {
  const cuts = method.thresholds;
  return cuts.length < 2 ? 0 : (cuts[at] - cuts[0]) / (cuts.at(-1) - cuts[0]);
};
const sliders = [];

/** A slider over all methods' sweeps, their chosen thresholds marked; all sliders move as one. */
function thresholdControl(name) {
  const range = h("input", {
    type: "range", min: 0, max: steps - 1, step: 1, id: `${name}-threshold`,
    oninput: () => setStep(Number(range.value)),
  });
  const chosen = h("button", { type: "button", class: "chosen", onclick: () => setStep(null) }, "Best thresholds");
  const values = h("div", { class: "values" });
  const marks = h("div", { class: "marks", "aria-hidden": "true" });
  for (const [look, method] of methods.entries()) {
    const mark = h("span", { title: `${method.method}: best at ${shown(method.thresholds[method.chosen])}` }, swatch(look));
    mark.style.left = `${100 * part(method, method.chosen)}%`;
    marks.append(mark);
  }
  function update() {
    const average = methods.reduce((sum, method) => sum + part(method, method.chosen), 0) / methods.length;
    range.value = state.step ?? Math.round(average * (steps - 1));
    const cuts = methods.map((method) => `${method.method} ${cutText(method)}`).join(", ");
    range.setAttribute("aria-valuetext", state.step === null ? `each at its best: ${cuts}` : cuts);
    range.classList.toggle("idle", state.step === null);
    chosen.setAttribute("aria-pressed", String(state.step === null));
    values.replaceChildren(
      ...methods.map((method, look) => {
        const dice = method.dice[place(method)];
        const mean = dice === undefined ? null : h("span", { class: "quiet", title: "mean Dice over all samples" }, h("span", { class: "wide" }, "Dice "), number(dice));
        return h("span", { class: "value", "data-method": method.method }, swatch(look), h("span", {}, method.method, " "), h("b", {}, cutText(method)), mean);
      }),
    );
  }
  sliders.push(update);
  update();
  return h("div", { class: "threshold" },
    h("div", { class: "slider" }, h("label", { for: `${name}-threshold` }, "Threshold"), h("div", { class: "track" }, range, marks), chosen),
    values);
}

function setStep(step) {
  state.step = step === null ? null : Math.max(0, Math.min(steps - 1, step));
  for (const update of sliders) update();
  redraw();
}

function nudge(by) {
  const slider = document.querySelector('input[type="range"]');
  if (slider) setStep(Number(slider.value) + by);
}

// ---- a sample's maps --------------------------------------------------------------------------

const loading = new Map();
const arrived = new Map();
window.showSample = (index, data) => arrived.get(index)(data); // called by samples/*.js

/** What lies in a sample's own file; a page from a disk can load scripts, but not fetch. */
function load(index) {
  if (!loading.has(index)) {
    loading.set(index, new Promise((resolve, reject) => {
      const script = h("script", {
        src: `samples/${String(index).padStart(4, "0")}.js`,
        onerror: () => reject(new Error("its file in samples/ is missing")),
      });
      arrived.set(index, (data) => {
        arrived.delete(index);
        script.remove();
        const maps = Object.entries(data.maps).map(([name, map]) => [name, { ...decodeMap(map), levels: map.levels }]);
        resolve({ ...data, maps: new Map(maps) });
      });
      document.head.append(script);
    }));
  }
  return loading.get(index);
}

const fit = ([height, width], side) => {
  const scale = Math.min(1, side / Math.max(height, width));
  return [Math.max(1, Math.round(height * scale)), Math.max(1, Math.round(width * scale))];
};
const number = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
const diceOf = (sample, method, at = place(method)) => sample.dice[method.method]?.[at];

/**
 * Picture tiles of one sample, drawn from its maps. `draw` paints all for the thresholds of now,
 * `clear` gives their memory back.
 */
class Tiles {
  constructor(index, side) {
    this.index = index;
    this.sample = report.samples[index];
    this.size = fit(this.sample.size, side);
    this.annotated = null; // the annotated mask at this.size
    this.painters = [];
    this.values = new Map();
  }

  picture(file, alt, ...over) {
    const [height, width] = this.sample.size;
    const image = h("img", { src: `images/${file}`, alt, loading: "lazy", width, height, draggable: "false" });
    const small = Math.max(height, width) <= 128;
    return h("div", { class: `picture${small ? " small" : ""}` }, image, ...over);
  }

  source() {
    if (!this.sample.annotated) return this.picture(this.sample.source, "source");
    const canvas = h("canvas", { "aria-hidden": "true" });
    this.painters.push(() => {
      if (!canvas.dataset.done) paintOutline(canvas, this.size, this.annotated);
      canvas.dataset.done = "yes";
    });
    return this.picture(this.sample.source, "source, the annotated mask outlined", canvas);
  }

  annotation() {
    const canvas = h("canvas", { "aria-hidden": "true" });
    const box = this.picture(this.sample.source, "the annotated mask", canvas);
    box.classList.add("mask");
    this.painters.push(() => {
      if (!canvas.dataset.done) paintMask(canvas, this.size, this.annotated, 0, null);
      canvas.dataset.done = "yes";
    });
    return box;
  }

  map(method, view) {
    const canvas = h("canvas", { role: "img", "data-method": method.method, "data-view": view });
    const box = this.picture(this.sample.source, "", canvas);
    box.classList.add(view);
    const name = () => {
      const what = view === "heat" ? "soft map" : `mask at ${cutText(method)}`;
      canvas.setAttribute("aria-label", `${method.method}: ${what}`);
    };
    name();
    this.painters.push((data) => {
      const map = data.maps.get(method.method);
      box.classList.toggle("missing", !map);
      if (!map) return;
      if (!this.values.has(method)) this.values.set(method, upsample(map, this.size));
      const values = this.values.get(method);
      name();
      if (view === "mask") {
        paintMask(canvas, this.size, values, map.levels[place(method)], this.annotated);
      } else if (!canvas.dataset.done) {
        paintHeat(canvas, this.size, values, heat);
        canvas.dataset.done = "yes";
      }
    });
    return box;
  }

  async draw() {
    try {
      this.wanted = true;
      const data = await load(this.index);
      if (!this.wanted) return; // out of sight again
      if (data.runs && !this.annotated) {
        const mask = decodeRuns(data.runs, this.sample.size);
        this.annotated = resizeMask(mask, this.sample.size, this.size);
      }
      for (const painter of this.painters) painter(data);
    } catch (error) {
      this.failed?.(error.message);
    }
  }

  clear(host) {
    this.wanted = false;
    this.values.clear();
    for (const canvas of host.querySelectorAll("canvas")) {
      canvas.width = canvas.height = 0;
      delete canvas.dataset.done;
    }
  }
}

/** A sample's Dice as number and bar, and the function that brings them to the threshold of now. */
function diceCaption(sample, look, method) {
  const value = h("b", { class: "dice" });
  const bar = h("i", { class: `bar look-${look % SHAPES.length}` });
  const update = () => {
    const dice = diceOf(sample, method);
    value.textContent = number(dice);
    bar.style.setProperty("--dice", dice ?? 0);
  };
  update();
  return [sample.dice[method.method] ? [value, bar] : [], update];
}

const OTHERS = { none: "edit without a mask", oracle: "edit under the annotated mask" };
/** Edits are called by their mask, where there are several editors "editor, mask". */
const maskOf = (name) => name.split(", ").at(-1);
const editorOf = (name) => name.split(", ").slice(0, -1).join(", ");
const editLabel = (name) => name.replace(/(^|, )none$/, "$1no mask");
const editLook = (name) => {
  const at = methods.findIndex(({ method }) => method === maskOf(name));
  return at < 0 ? maskOf(name) : at;
};
const editCut = (name) => methods.find(({ method }) => method === maskOf(name))?.edited ?? null;

/** The words of the target prompt, those that the source prompt has not marked. */
function prompts(sample) {
  const [source, target] = sample.prompts;
  const known = new Set(source.toLowerCase().match(/[\p{L}\p{N}]+/gu));
  const changed = (word) => word.toLowerCase().match(/[\p{L}\p{N}]+/gu)?.some((w) => !known.has(w));
  return h("p", { class: "prompts" },
    h("span", { class: "quiet" }, source), h("span", { class: "arrow", "aria-label": "becomes" }, " → "),
    h("span", {}, ...target.split(/(\s+)/).map((word) => (changed(word) ? h("mark", {}, word) : word))));
}

// ---- cards ------------------------------------------------------------------------------------

const cards = document.getElementById("cards");
const more = document.getElementById("more");
let order = []; // indices of the samples that pass the filters, as they are shown
let listed = 0; // how many of them have a card
const address = (sample) => `#sample-${encodeURIComponent(sample.id)}`;

function card(index) {
  const tiles = new Tiles(index, CARD);
  const { sample } = tiles;
  const updates = [];
  const strip = h("div", { class: "strip" });
  strip.append(h("figure", {}, tiles.source(), h("figcaption", {}, "source")));
  if (state.view === "edit") {
    if (sample.target) strip.append(h("figure", {}, tiles.picture(sample.target, "true edit"), h("figcaption", {}, "true edit")));
    for (const [name, file] of Object.entries(sample.edits)) {
      const cut = editCut(name);
      strip.append(h("figure", { "data-edit": name },
        tiles.picture(file, `edit: ${editLabel(name)}`),
        h("figcaption", {}, h("span", {}, editLabel(name)), cut === null ? null : h("span", { class: "quiet at" }, shown(cut)))));
    }
  } else {
    for (const [look, method] of methods.entries()) {
      const [caption, update] = diceCaption(sample, look, method);
      updates.push(update);
      strip.append(h("figure", { "data-method": method.method }, tiles.map(method, state.view), h("figcaption", {}, h("span", {}, method.method), ...caption)));
    }
  }
  const tilesIn = strip.childElementCount;
  strip.style.setProperty("--tiles", tilesIn > 6 ? Math.ceil(tilesIn / 2) : Math.max(5, tilesIn));
  const article = h("article", { class: "card", "data-index": index },
    h("header", {},
      h("a", { class: "id", href: address(sample), "aria-keyshortcuts": "Enter" }, sample.id),
      types.length > 1 && !state.grouped ? h("span", { class: "type" }, report.types[sample.type]) : null),
    prompts(sample), strip);
  strip.addEventListener("click", () => { location.hash = address(sample); });
  tiles.failed = (message) => strip.replaceChildren(h("p", { class: "note" }, `Nothing to draw: ${message}.`));
  article.show = () => {
    for (const update of updates) update();
    tiles.draw();
  };
  article.hide = () => tiles.clear(strip);
  return article;
}

const inView = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) {
      inView.add(target);
      target.show();
    } else if (inView.delete(target)) target.hide();
  }
}, { rootMargin: "300px" });
const end = new IntersectionObserver(([{ isIntersecting }]) => {
  if (isIntersecting && listed < order.length) list(PAGE);
}, { rootMargin: "900px" });

/** Add cards for the next samples in order. */
function list(count) {
  for (const index of order.slice(listed, listed + count)) {
    const { type } = report.samples[index];
    let group = cards.lastElementChild;
    if (!group || (state.grouped && group.dataset.type !== String(type))) {
      const total = order.filter((i) => report.samples[i].type === type).length;
      const title = state.grouped && types.length > 1 ? h("h3", {}, report.types[type], h("small", {}, ` ${total}`)) : null;
      group = h("section", { class: "group", "data-type": type, "aria-label": title ? report.types[type] : "Samples" }, title, h("div", { class: "grid" }));
      cards.append(group);
    }
    const node = card(index);
    group.querySelector(".grid").append(node);
    watcher.observe(node);
  }
  listed = Math.min(order.length, listed + count);
  end.unobserve(more); // asked anew, it answers anew, even if the end is still in sight
  end.observe(more);
}

/** Filter, sort and show from the start. */
function arrange() {
  const text = (sample) => [sample.id, ...sample.prompts].join(" ").toLowerCase();
  order = report.samples.flatMap((sample, i) => {
    const fits = state.type === "" || sample.type === Number(state.type);
    return fits && state.words.every((word) => text(sample).includes(word)) ? [i] : [];
  });
  const id = (i) => report.samples[i].id;
  const byId = (a, b) => (id(a) < id(b) ? -1 : 1);
  const dice = (i) => diceOf(report.samples[i], methods[state.by], methods[state.by].chosen) ?? NaN;
  const sign = { worst: 1, best: -1 }[state.sort];
  // Samples without a Dice come last, whichever way the others are sorted.
  const byDice = (a, b) => Number.isNaN(dice(a)) - Number.isNaN(dice(b)) || sign * (dice(a) - dice(b)) || byId(a, b);
  order.sort(sign ? byDice : byId);
  if (state.grouped) order.sort((a, b) => report.samples[a].type - report.samples[b].type);
  const all = report.samples.length;
  document.getElementById("count").textContent = order.length === all ? `${all} samples` : `${order.length} of ${all} samples`;
  watcher.disconnect();
  inView.clear();
  cards.replaceChildren();
  listed = 0;
  list(PAGE);
  if (!order.length) cards.append(h("p", { class: "note" }, "No sample fits the search and the filter."));
}

let waiting = false;
/** Draw what is in view again, once a frame. */
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const node of inView) node.show();
    detail.update?.();
  });
}

// ---- the controls -----------------------------------------------------------------------------

const VIEWS = { mask: "Masks", heat: "Heat maps", edit: "Edits" };
const LEGENDS = {
  mask: "Masks: white right, orange too much, blue missed.",
  heat: "Soft maps over the grey picture, each from its lowest to its highest value.",
  edit: methods.length
    ? "Edits under masks at the best of the thresholds that were edited under (beside the name); the slider does not change them."
    : "Edits as they were made.",
};
/** Why an edit's threshold is not the mask's. */
const EDITED = "Edits were made at fewer thresholds than masks were scored at: shown is each method's edit at the best of those, and the slider does not change it.";

function buildControls() {
  const form = document.getElementById("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  if (methods.length) form.append(thresholdControl("gallery"));
  const row = h("div", { class: "row" });
  const edits = report.samples.some((sample) => Object.keys(sample.edits).length);
  if (methods.length) {
    const views = Object.entries(VIEWS).filter(([view]) => view !== "edit" || edits);
    row.append(h("fieldset", { class: "views" }, h("legend", {}, "Show"),
      ...views.map(([view, label]) => {
        const input = h("input", { type: "radio", name: "view", value: view, checked: view === state.view, onchange: () => setView(view) });
        return h("label", {}, input, h("span", {}, label));
      })));
  }
  const field = (label, input) => h("label", { class: "field" }, h("span", {}, label), input);
  const select = (name, options, change) =>
    h("select", { name, onchange: (event) => { change(event.target.value); arrange(); } },
      ...options.map(([value, text]) => h("option", { value }, text)));
  const search = h("input", { type: "search", name: "search", placeholder: "id or words", autocomplete: "off", "aria-keyshortcuts": "/" });
  search.addEventListener("input", () => {
    state.words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    arrange();
  });
  row.append(field("Search", search));
  if (types.length > 1) {
    const options = types.map((type) => [type, report.types[type]]);
    row.append(field("Edit type", select("type", [["", "all"], ...options], (value) => { state.type = value; })));
  }
  if (methods.some(({ dice }) => dice.length)) {
    const orders = [["id", "id"], ["worst", "worst Dice first"], ["best", "best Dice first"]];
    row.append(field("Sort", select("sort", orders, (value) => { state.sort = value; })));
    row.append(field("Dice of", select("by", methods.map(({ method }, i) => [i, method]), (value) => { state.by = Number(value); })));
  }
  if (types.length > 1) {
    const box = h("input", { type: "checkbox", name: "grouped", checked: true, onchange: () => { state.grouped = box.checked; arrange(); } });
    row.append(h("label", { class: "check" }, box, "by edit type"));
  }
  form.append(row);
}

function setView(view) {
  const input = document.querySelector(`input[name="view"][value="${view}"]`);
  if (!input) return;
  input.checked = true;
  state.view = view;
  showLegend();
  const first = [...cards.querySelectorAll(".card")].find((node) => node.getBoundingClientRect().bottom > 120);
  const [index, top] = [first?.dataset.index, first?.getBoundingClientRect().top];
  const count = listed;
  arrange();
  list(count - listed);
  // What was looked at stays where it was.
  const again = index && cards.querySelector(`[data-index="${index}"]`);
  if (again && top < innerHeight) scrollBy({ top: again.getBoundingClientRect().top - top, behavior: "instant" });
}

function showLegend() {
  const outlined = report.samples.some(({ annotated }) => annotated);
  const text = `${LEGENDS[state.view]} ${outlined ? "Yellow line: annotated mask." : ""}`;
  document.getElementById("legend").textContent = text;
}

/** Put the focus on the sample before or after the focused one (or the first in view). */
function walkCards(by) {
  const links = [...cards.querySelectorAll(".card .id")];
  const at = links.findIndex((link) => link.closest(".card").contains(document.activeElement));
  const inSight = () => links.findIndex((link) => link.getBoundingClientRect().top > 0);
  const next = at < 0 ? inSight() : at + by;
  if (next >= links.length && listed < order.length) {
    list(PAGE);
    walkCards(by);
    return;
  }
  links[next]?.focus();
  links[next]?.closest(".card").scrollIntoView({ block: "nearest" });
}

// ---- a single sample --------------------------------------------------------------------------

const detail = { dialog: document.getElementById("detail"), index: null, update: null };

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
  const index = report.samples.findIndex((sample) => sample.id === id);
  openDetail(index, id);
}

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

function detailHead(title, position) {
  const walk = (by, label, text) => h("button", { type: "button", "aria-label": label, onclick: () => walkDetail(by) }, text);
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

function walkDetail(by) {
  const through = walked();
  const next = through[through.indexOf(detail.index) + by];
  if (next === undefined) return;
  history.replaceState(null, "", address(report.samples[next]));
  route();
}

function detailOf(index) {
  const tiles = new Tiles(index, DETAIL);
  const { sample } = tiles;
  const updates = [];
  const through = walked();
  const position = `${through.indexOf(index) + 1} of ${through.length}`;
  const columns = h("div", { class: "columns" });
  const column = (title, ...figures) => columns.append(h("section", { class: "column" }, h("h3", {}, ...title), ...figures));
  const figure = (kind, box, ...caption) => h("figure", { class: kind }, box, h("figcaption", {}, ...caption));
  const others = Object.entries(sample.edits).filter(([name]) => !methods.some(({ method }) => method === name));
  const editors = [...new Set(others.map(([name]) => editorOf(name)).filter(Boolean))];
  column(["sample"],
    figure("top", tiles.picture(sample.source, "source"), "source"),
    ...(sample.annotated ? [figure("middle", tiles.annotation(), "annotated mask")] : []),
    ...(sample.target && !editors.length ? [figure("bottom", tiles.picture(sample.target, "true edit"), "true edit")] : []));
  for (const [look, method] of methods.entries()) {
    const name = method.method;
    const cut = h("span");
    const [caption, update] = diceCaption(sample, look, method);
    updates.push(update, () => { cut.textContent = `mask at ${cutText(method)}`; });
    column([swatch(look), name],
      figure("top", tiles.map(method, "heat"), "soft map"),
      figure("middle", tiles.map(method, "mask"), cut, ...caption),
      ...(sample.edits[name] ? [figure("bottom", tiles.picture(sample.edits[name], `edit: ${name}`), `edit at ${shown(method.edited)}`)] : []));
  }
  const alone = others.filter(([name]) => !editorOf(name));
  for (let i = 0; i < alone.length; i += 2) {
    const pair = alone.slice(i, i + 2);
    column([methods.length ? "for comparison" : "edits"], ...pair.map(([name, file], at) =>
      figure(["middle", "bottom"][at], tiles.picture(file, `edit: ${editLabel(name)}`), OTHERS[name] ?? editLabel(name))));
  }
  const byEditor = editors.map((editor) =>
    h("section", {}, h("h3", {}, `Edits by ${editor}`), h("div", { class: "edits" },
      ...(sample.target ? [figure("", tiles.picture(sample.target, "true edit"), "true edit")] : []),
      ...others.filter(([name]) => editorOf(name) === editor).map(([name, file]) => {
        const [mask, cut] = [editLabel(maskOf(name)), editCut(name)];
        return figure("", tiles.picture(file, `edit: ${editLabel(name)}`), cut === null ? mask : `${mask} at ${shown(cut)}`);
      }))));
  tiles.failed = (message) => columns.before(h("p", { class: "note" }, `Maps and masks cannot be drawn: ${message}.`));
  const below = h("div", { class: "below" });
  const curves = diceCurves(sample, below);
  updates.push(() => curves?.mark(Object.fromEntries(methods.map((m) => [m.method, m.thresholds[place(m)]]))));
  load(index).then(({ scores }) => scoreTable(scores, below), () => {});
  detail.update = () => {
    for (const update of updates) update();
    tiles.draw();
  };
  sliders.length = Math.min(sliders.length, 1); // that of the sample shown before is gone
  return [
    detailHead(sample.id, position),
    types.length > 1 ? h("p", { class: "type" }, report.types[sample.type]) : null,
    prompts(sample),
    methods.length ? thresholdControl("detail") : null,
    columns, ...byEditor, below,
    methods.length ? h("p", { class: "note" }, LEGENDS.mask, " Dice as scored at full size. ", Object.keys(sample.edits).length ? EDITED : "") : null,
  ].filter(Boolean);
}

/** This sample's Dice over the sweeps, every method from its first to its last threshold. */
function diceCurves(sample, host) {
  const known = methods.filter(({ method }) => sample.dice[method]);
  if (!known.length || steps < 2) return null;
  const series = known.map((method) => ({
    name: method.method,
    look: methods.indexOf(method),
    points: method.thresholds.flatMap((cut, i) => {
      const dice = sample.dice[method.method][i];
      const ring = i === method.chosen;
      return dice === null ? [] : [{ x: 100 * part(method, i), y: dice, at: cut, ring, said: ring ? "its best threshold over all samples" : "" }];
    }),
  }));
  const box = h("figure", { class: "figure" }, h("h3", {}, "Dice over the threshold"));
  host.append(box);
  return drawChart(box, { x: "threshold, % of the sweep", y: "Dice ↑", range: [[0, 100], [0, 1]], series }, { height: 250 });
}

function scoreTable(scores, host) {
  const rows = Object.entries(scores);
  if (!rows.length || !report.metrics.length) return;
  const cell = (value, { digits }) => h("td", {}, value === null ? "–" : value.toFixed(digits));
  host.append(h("figure", { class: "figure" }, h("h3", {}, "Scores of the edits shown"), h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { class: "text key", scope: "col" }, "Mask"), ...report.metrics.map(({ label }) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, ...rows.map(([name, values]) => h("tr", {},
      h("th", { class: "text key", scope: "row" }, swatch(editLook(name)), " ", editLabel(name)),
      ...values.map((value, i) => cell(value, report.metrics[i])))))))));
}
