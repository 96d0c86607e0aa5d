// @ts-check
// A sample's pictures: its maps are loaded when they come into view, and cut and painted here.

/**
 * @typedef {{values: Float32Array, height: number, width: number, levels: number[]}} SoftMap
 * @typedef {{points: [number, number][], boxes: [number, number, number, number][][],
 *   values: number[][], best: number[], kept: number, by: string, edit: string}} Candidates boxes
 *   that were painted: of each point those of all sizes, in shares of the picture's side
 * @typedef {{runs: number[] | null, maps: Map<string, SoftMap>,
 *   scores: Record<string, (number | null)[]>,
 *   candidates: Record<string, Candidates>}} SampleData what lies in samples/
 */

const heat = bytes(report.heat);
/** @type {Map<number, Promise<SampleData>>} */
const loading = new Map();
/** @type {Map<number, (data: any) => void>} */
const arrived = new Map();
// Called by samples/*.js.
Object.assign(window, { showSample: (/** @type {number} */ index, /** @type {any} */ data) => arrived.get(index)(data) });

/** What lies in a sample's own file; a page from a disk can load scripts, but not fetch.
 * @param {number} index @returns {Promise<SampleData>} */
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
        resolve({ ...data, maps: new Map(/** @type {any} */ (maps)) });
      });
      document.head.append(script);
    }));
  }
  return loading.get(index);
}

/** A picture's size with a longer side of at most ``side``.
 * @param {[number, number]} size @param {number} side @returns {[number, number]} */
const fit = ([height, width], side) => {
  const scale = Math.min(1, side / Math.max(height, width));
  return [Math.max(1, Math.round(height * scale)), Math.max(1, Math.round(width * scale))];
};

/**
 * Picture tiles of one sample, drawn from its maps. `draw` paints all for the thresholds of now,
 * `clear` gives their memory back.
 */
class Tiles {
  /** @param {number} index @param {number} side longer side at which maps are drawn, in pixels */
  constructor(index, side) {
    this.index = index;
    this.sample = report.samples[index];
    this.size = fit(this.sample.size, side);
    /** @type {Uint8Array | null} the annotated mask at this.size */
    this.annotated = null;
    /** @type {((data: SampleData) => void)[]} */
    this.painters = [];
    /** @type {Map<Method, Float32Array>} */
    this.values = new Map();
    this.wanted = false;
    /** @type {((message: string) => void) | undefined} */
    this.failed = undefined;
  }

  /** @param {string} file @param {string} alt @param {...Node} over @returns {HTMLElement} */
  picture(file, alt, ...over) {
    const [height, width] = this.sample.size;
    const image = h("img", { src: `images/${file}`, alt, loading: "lazy", width, height, draggable: "false" });
    const small = Math.max(height, width) <= 128;
    return h("div", { class: `picture${small ? " small" : ""}` }, image, ...over);
  }

  source() {
    if (!this.sample.annotated) return this.picture(this.sample.source, "source");
    const canvas = h("canvas", { "aria-hidden": "true" });
    this.once(canvas, () => paintOutline(canvas, this.size, this.annotated));
    return this.picture(this.sample.source, "source, the annotated mask outlined", canvas);
  }

  annotation() {
    const canvas = h("canvas", { "aria-hidden": "true" });
    const box = this.picture(this.sample.source, "the annotated mask", canvas);
    box.classList.add("mask");
    this.once(canvas, () => paintMask(canvas, this.size, this.annotated, 0, null));
    return box;
  }

  /** Paint what does not depend on the threshold. @param {HTMLCanvasElement} canvas @param {() => void} paint */
  once(canvas, paint) {
    this.painters.push(() => {
      if (!canvas.dataset.done) paint();
      canvas.dataset.done = "yes";
    });
  }

  /** @param {Method} method @param {string} view mask or heat */
  map(method, view) {
    const canvas = h("canvas", { role: "img", "data-method": method.method, "data-view": view });
    const box = this.picture(this.sample.source, "", canvas);
    box.classList.add(view);
    const name = () => {
      const what = view === "heat" ? "soft map" : `mask at ${thresholdText(method)}`;
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
      this.failed?.(/** @type {Error} */ (error).message);
    }
  }

  /** @param {Element} host */
  clear(host) {
    this.wanted = false;
    this.values.clear();
    for (const canvas of host.querySelectorAll("canvas")) {
      canvas.width = canvas.height = 0;
      delete canvas.dataset.done;
    }
  }
}

/** @param {Sample} sample @param {Method} method */
const diceOf = (sample, method, at = place(method)) => sample.dice[method.method]?.[at];

/** A sample's Dice as number and bar, and the function that brings them to the threshold of now.
 * @param {Sample} sample @param {number} look @param {Method} method
 * @returns {[HTMLElement[], () => void]} */
function diceCaption(sample, look, method) {
  const value = h("b", { class: "dice" });
  const bar = h("i", { class: `bar look-${look % SHAPES.length}` });
  const update = () => {
    const dice = diceOf(sample, method);
    value.textContent = scoreText(dice);
    bar.style.setProperty("--dice", dice ?? 0);
  };
  update();
  return [sample.dice[method.method] ? [value, bar] : [], update];
}

// Edits are called by their mask, where there are several editors "editor, mask".
/** @param {string} name */
const maskOf = (name) => name.split(", ").at(-1);
/** @param {string} name */
const editorOf = (name) => name.split(", ").slice(0, -1).join(", ");
/** @param {string} name */
const editLabel = (name) => name.replace(/(^|, )none$/, "$1no mask");
/** @param {string} name */
const editLook = (name) => {
  const at = methods.findIndex(({ method }) => method === maskOf(name));
  return at < 0 ? maskOf(name) : at;
};
/** The threshold that an edit was made under, null where it has none. @param {string} name */
const editThreshold = (name) => methods.find(({ method }) => method === maskOf(name))?.edited ?? null;

/** The words of the target prompt, those that the source prompt has not marked. @param {Sample} sample */
function prompts(sample) {
  const [source, target] = sample.prompts;
  const words = (/** @type {string} */ text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const before = new Set(words(source));
  const changed = (/** @type {string} */ word) => words(word).some((part) => !before.has(part));
  return h("p", { class: "prompts" },
    h("span", { class: "quiet" }, source), h("span", { class: "arrow", "aria-label": "becomes" }, " → "),
    h("span", {}, ...target.split(/(\s+)/).map((word) => (changed(word) ? h("mark", {}, word) : word))));
}
