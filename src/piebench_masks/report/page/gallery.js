// @ts-check
// The gallery: which samples are shown in which order, as cards, and the controls above them.
// All text goes into the page as text nodes: prompts and ids are never markup.

const CARD = 160; // longer side in pixels at which a card's maps are drawn
const PAGE = innerWidth > 760 ? 24 : 8; // cards added at a time
const types = [...new Set(report.samples.map(({ type }) => type))].sort((a, b) => a - b);
const state = {
  view: methods.length ? "mask" : "edit", type: "", words: /** @type {string[]} */ ([]),
  sort: "id", by: 0, grouped: true,
};

/** @typedef {HTMLElement & {show: () => void, hide: () => void}} Card */
const cards = document.getElementById("cards");
const more = document.getElementById("more");
/** @type {number[]} indices of the samples that pass the filters, as they are shown */
let order = [];
let listed = 0; // how many of them have a card
/** @param {Sample} sample */
const address = (sample) => `#sample-${encodeURIComponent(sample.id)}`;

/** @param {number} index @returns {Card} */
function card(index) {
  const tiles = new Tiles(index, CARD);
  const { sample } = tiles;
  /** @type {(() => void)[]} */
  const updates = [];
  const strip = h("div", { class: "strip" });
  strip.append(h("figure", {}, tiles.source(), h("figcaption", {}, "source")));
  strip.append(...(state.view === "edit" ? editFigures(tiles) : mapFigures(tiles, updates)));
  const count = strip.childElementCount;
  strip.style.setProperty("--tiles", count > 6 ? Math.ceil(count / 2) : Math.max(5, count));
  const article = h("article", { class: "card", "data-index": index },
    h("header", {},
      h("a", { class: "id", href: address(sample), "aria-keyshortcuts": "Enter" }, sample.id),
      types.length > 1 && !state.grouped ? h("span", { class: "type" }, typeLabels[sample.type]) : null),
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

/** @param {Tiles} tiles @returns {HTMLElement[]} */
function editFigures(tiles) {
  const { sample } = tiles;
  const target = sample.target
    ? [h("figure", {}, tiles.picture(sample.target, "true edit"), h("figcaption", {}, "true edit"))] : [];
  return [...target, ...Object.entries(sample.edits).map(([name, file]) => {
    const threshold = editThreshold(name);
    return h("figure", { "data-edit": name },
      tiles.picture(file, `edit: ${editLabel(name)}`),
      h("figcaption", {}, h("span", {}, editLabel(name)), threshold === null ? null : h("span", { class: "quiet at" }, shown(threshold))));
  })];
}

/** @param {Tiles} tiles @param {(() => void)[]} updates @returns {HTMLElement[]} */
function mapFigures(tiles, updates) {
  return methods.map((method, look) => {
    const [caption, update] = diceCaption(tiles.sample, look, method);
    updates.push(update);
    return h("figure", { "data-method": method.method }, tiles.map(method, state.view), h("figcaption", {}, h("span", {}, method.method), ...caption));
  });
}

/** @type {Set<Card>} */
const inView = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const node = /** @type {Card} */ (target);
    if (isIntersecting) {
      inView.add(node);
      node.show();
    } else if (inView.delete(node)) node.hide();
  }
}, { rootMargin: "300px" });
const end = new IntersectionObserver(([{ isIntersecting }]) => {
  if (isIntersecting && listed < order.length) list(PAGE);
}, { rootMargin: "900px" });

/** Add cards for the next samples in order. @param {number} count */
function list(count) {
  for (const index of order.slice(listed, listed + count)) {
    const { type } = report.samples[index];
    let group = /** @type {HTMLElement} */ (cards.lastElementChild);
    if (!group || (state.grouped && group.dataset.type !== String(type))) {
      const total = order.filter((i) => report.samples[i].type === type).length;
      const title = state.grouped && types.length > 1 ? h("h3", {}, typeLabels[type], h("small", {}, ` ${total}`)) : null;
      group = h("section", { class: "group", "data-type": type, "aria-label": title ? typeLabels[type] : "Samples" }, title, h("div", { class: "grid" }));
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
  const text = (/** @type {Sample} */ sample) => [sample.id, ...sample.prompts].join(" ").toLowerCase();
  order = report.samples.flatMap((sample, i) => {
    const fits = state.type === "" || sample.type === Number(state.type);
    return fits && state.words.every((word) => text(sample).includes(word)) ? [i] : [];
  });
  sortOrder();
  const all = report.samples.length;
  document.getElementById("count").textContent = order.length === all ? `${all} samples` : `${order.length} of ${all} samples`;
  watcher.disconnect();
  inView.clear();
  cards.replaceChildren();
  listed = 0;
  list(PAGE);
  if (!order.length) cards.append(h("p", { class: "note" }, "No sample fits the search and the filter."));
}

/** By id or by Dice; samples without a Dice come last, whichever way the others are sorted. */
function sortOrder() {
  /** @typedef {(a: number, b: number) => number} Compare */
  const { samples } = report;
  const dice = (/** @type {number} */ i) => diceOf(samples[i], methods[state.by], methods[state.by].chosen) ?? NaN;
  const sign = { worst: 1, best: -1 }[state.sort];
  /** @type {Compare} */
  const byId = (a, b) => (samples[a].id < samples[b].id ? -1 : 1);
  /** @type {Compare} */
  const byDice = (a, b) =>
    Number(Number.isNaN(dice(a))) - Number(Number.isNaN(dice(b))) || sign * (dice(a) - dice(b)) || byId(a, b);
  order.sort(sign ? byDice : byId);
  if (state.grouped) order.sort((a, b) => samples[a].type - samples[b].type);
}

// ---- the controls -----------------------------------------------------------------------------

/** @type {Record<string, string>} */
const VIEWS = { mask: "Masks", heat: "Heat maps", edit: "Edits" };
/** @type {Record<string, string>} */
const LEGENDS = {
  mask: "Masks: white right, orange too much, blue missed.",
  heat: "Soft maps over the grey picture, each from its lowest to its highest value.",
  edit: methods.length
    ? "Edits under masks at the best of the thresholds that were edited under (beside the name); the slider does not change them."
    : "Edits as they were made.",
};

function buildControls() {
  const form = document.getElementById("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  if (methods.length) form.append(thresholdControl("gallery"));
  const row = h("div", { class: "row" });
  if (methods.length) row.append(viewChoice());
  const search = h("input", { type: "search", name: "search", placeholder: "id or words", autocomplete: "off", "aria-keyshortcuts": "/" });
  search.addEventListener("input", () => {
    state.words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    arrange();
  });
  row.append(field("Search", search));
  if (types.length > 1) {
    const options = types.map((type) => [String(type), typeLabels[type]]);
    row.append(field("Edit type", select("type", [["", "all"], ...options], (value) => { state.type = value; })));
  }
  if (methods.some(({ dice }) => dice.length)) {
    const orders = [["id", "id"], ["worst", "worst Dice first"], ["best", "best Dice first"]];
    const names = methods.map(({ method }, i) => [String(i), method]);
    row.append(field("Sort", select("sort", orders, (value) => { state.sort = value; })));
    row.append(field("Dice of", select("by", names, (value) => { state.by = Number(value); })));
  }
  if (types.length > 1) {
    const box = h("input", { type: "checkbox", name: "grouped", checked: true, onchange: () => { state.grouped = box.checked; arrange(); } });
    row.append(h("label", { class: "check" }, box, "by edit type"));
  }
  form.append(row);
}

function viewChoice() {
  const edits = report.samples.some((sample) => Object.keys(sample.edits).length);
  const views = Object.entries(VIEWS).filter(([view]) => view !== "edit" || edits);
  return h("fieldset", { class: "views" }, h("legend", {}, "Show"),
    ...views.map(([view, label]) => {
      const input = h("input", { type: "radio", name: "view", value: view, checked: view === state.view, onchange: () => setView(view) });
      return h("label", {}, input, h("span", {}, label));
    }));
}

/** @param {string} label @param {HTMLElement} input */
const field = (label, input) => h("label", { class: "field" }, h("span", {}, label), input);

/** @param {string} name @param {string[][]} options @param {(value: string) => void} change */
const select = (name, options, change) =>
  h("select", { name, onchange: (/** @type {any} */ event) => { change(event.target.value); arrange(); } },
    ...options.map(([value, text]) => h("option", { value }, text)));

/** @param {string} view */
function setView(view) {
  const input = /** @type {HTMLInputElement} */ (document.querySelector(`input[name="view"][value="${view}"]`));
  if (!input) return;
  input.checked = true;
  state.view = view;
  showLegend();
  const nodes = /** @type {NodeListOf<HTMLElement>} */ (cards.querySelectorAll(".card"));
  const first = [...nodes].find((node) => node.getBoundingClientRect().bottom > 120);
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

/** Put the focus on the sample before or after the focused one (or the first in view).
 * @param {number} by @returns {void} */
function walkCards(by) {
  const links = /** @type {HTMLElement[]} */ ([...cards.querySelectorAll(".card .id")]);
  const at = links.findIndex((link) => link.closest(".card").contains(document.activeElement));
  const inSight = () => links.findIndex((link) => link.getBoundingClientRect().top > 0);
  const next = at < 0 ? inSight() : at + by;
  if (next >= links.length && listed < order.length) {
    list(PAGE);
    return walkCards(by);
  }
  links[next]?.focus();
  links[next]?.closest(".card").scrollIntoView({ block: "nearest" });
}
