// @ts-check
// The report's data, and the threshold that all maps are cut at: one slider for all methods.

/**
 * @typedef {{method: string, thresholds: number[], chosen: number, edited: number | null,
 *   dice: (number | null)[]}} Method thresholds of a sweep; `chosen` is the best one's place
 * @typedef {{id: string, type: number, prompts: [string, string], size: [number, number],
 *   annotated: boolean, source: string, target: string | null, edits: Record<string, string>,
 *   dice: Record<string, (number | null)[]>}} Sample pictures are names of files
 * @typedef {{types: string[], heat: string, methods: Method[],
 *   metrics: {label: string, digits: number}[], samples: Sample[]}} PageData
 */

/** @type {PageData} */
const report = JSON.parse(document.getElementById("data").textContent);
const { methods, types: typeLabels } = report;
const steps = Math.max(1, ...methods.map(({ thresholds }) => thresholds.length));
/** Step of the slider through all sweeps; null: each method at its chosen threshold. */
/** @type {number | null} */
let step = null;

/** The place of a method's threshold under the slider: the one nearest to that part of its sweep.
 * @param {Method} method */
function place(method) {
  if (step === null || steps < 2) return method.chosen;
  const { thresholds } = method;
  const wanted = thresholds[0] + (step / (steps - 1)) * (thresholds.at(-1) - thresholds[0]);
  const distances = thresholds.map((threshold) => Math.abs(threshold - wanted));
  return distances.indexOf(Math.min(...distances));
}

/** @param {Method} method */
const thresholdText = (method) => shown(method.thresholds[place(method)]);
/** How far a threshold lies along its sweep, 0 to 1. @param {Method} method @param {number} at */
const part = ({ thresholds }, at) =>
  thresholds.length < 2 ? 0 : (thresholds[at] - thresholds[0]) / (thresholds.at(-1) - thresholds[0]);

/** @type {(() => void)[]} */
const sliders = [];
/** @type {(() => void)[]} */
const thresholdListeners = [];

/** A slider over all methods' sweeps, their chosen thresholds marked; all sliders move as one.
 * @param {string} name of the part of the page it stands in */
function thresholdControl(name) {
  const range = h("input", {
    type: "range", min: 0, max: steps - 1, step: 1, id: `${name}-threshold`,
    oninput: () => setStep(Number(range.value)),
  });
  const chosen = h("button", { type: "button", class: "chosen", onclick: () => setStep(null) }, "Best thresholds");
  const values = h("div", { class: "values" });
  const marks = h("div", { class: "marks", "aria-hidden": "true" });
  for (const [look, method] of methods.entries()) {
    const title = `${method.method}: best at ${shown(method.thresholds[method.chosen])}`;
    const mark = h("span", { title }, swatch(look));
    mark.style.left = `${100 * part(method, method.chosen)}%`;
    marks.append(mark);
  }
  function update() {
    const average = methods.reduce((sum, method) => sum + part(method, method.chosen), 0) / methods.length;
    range.value = step ?? Math.round(average * (steps - 1));
    const texts = methods.map((method) => `${method.method} ${thresholdText(method)}`).join(", ");
    range.setAttribute("aria-valuetext", step === null ? `each at its best: ${texts}` : texts);
    range.classList.toggle("idle", step === null);
    chosen.setAttribute("aria-pressed", String(step === null));
    values.replaceChildren(...methods.map(thresholdValue));
  }
  sliders.push(update);
  update();
  return h("div", { class: "threshold" },
    h("div", { class: "slider" }, h("label", { for: `${name}-threshold` }, "Threshold"), h("div", { class: "track" }, range, marks), chosen),
    values);
}

/** A method with its threshold of now and its mean Dice there. @param {Method} method @param {number} look */
function thresholdValue(method, look) {
  const dice = method.dice[place(method)];
  const mean = dice === undefined ? null
    : h("span", { class: "quiet", title: "mean Dice over all samples" }, h("span", { class: "wide" }, "Dice "), scoreText(dice));
  return h("span", { class: "value", "data-method": method.method },
    swatch(look), h("span", {}, method.method, " "), h("b", {}, thresholdText(method)), mean);
}

/** @param {number | null} wanted */
function setStep(wanted) {
  step = wanted === null ? null : Math.max(0, Math.min(steps - 1, wanted));
  for (const listener of [...sliders, ...thresholdListeners]) listener();
}

/** Move the slider by so many steps. @param {number} by */
function nudge(by) {
  const slider = /** @type {HTMLInputElement} */ (document.querySelector('input[type="range"]'));
  if (slider) setStep(Number(slider.value) + by);
}

/** The slider of a sample that was shown before is gone. */
const dropDetailSlider = () => { sliders.length = Math.min(sliders.length, 1); };
