// @ts-check
// What pointer and keys do to a chart. Charts are SVG as report/inline.py describes it: groups
// `.series` of marks `.point` that have labels, and `.entry` texts as the legend.

const REACH = 28; // pixels from the pointer to a point that is meant

/** Points tell what they are, the legend hides and shows series. @param {HTMLElement} plot */
function enliven(plot) {
  const tip = h("div", { class: "tip", role: "status" });
  tip.hidden = true;
  plot.append(tip);
  const points = () =>
    /** @type {SVGElement[]} */ ([...plot.querySelectorAll(".series:not(.off) .point")]);

  /** @param {SVGElement | undefined} point */
  function show(point) {
    for (const other of points()) other.classList.toggle("hover", other === point);
    tip.hidden = !point;
    if (!point) return;
    const [name, ...values] = (point.getAttribute("aria-label") ?? "").split(", ");
    tip.replaceChildren(h("strong", {}, name), ...values.map((text) => h("div", {}, text)));
    const [x, y] = centre(point);
    const box = plot.getBoundingClientRect();
    const left = Math.min(x - box.left + 14, plot.clientWidth - tip.offsetWidth - 2);
    const above = y - box.top - tip.offsetHeight - 12;
    tip.style.left = `${Math.max(0, left)}px`;
    tip.style.top = `${above > 0 ? above : y - box.top + 14}px`;
  }

  plot.addEventListener("pointermove", ({ clientX, clientY }) => {
    const distances = points().map((point) => {
      const [x, y] = centre(point);
      return Math.hypot(x - clientX, y - clientY);
    });
    const nearest = distances.indexOf(Math.min(...distances));
    show(distances[nearest] < REACH ? points()[nearest] : undefined);
  });
  plot.addEventListener("pointerleave", () => show(undefined));
  plot.addEventListener("focusin", ({ target }) => {
    if (target instanceof SVGElement && target.matches(".point")) show(target);
  });
  plot.addEventListener("focusout", () => show(undefined));
  plot.addEventListener("keydown", (event) => {
    const { activeElement } = document;
    const next = neighbour(points(), /** @type {any} */ (activeElement), event.key);
    if (!next) return;
    event.preventDefault();
    event.stopPropagation();
    activeElement?.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  points()[0]?.setAttribute("tabindex", "0");
  for (const entry of plot.querySelectorAll(".entry")) makeButton(plot, entry);
}

/** Where a point is in the window. @param {Element} point @returns {[number, number]} */
function centre(point) {
  const { left, right, top, bottom } = point.getBoundingClientRect();
  return [(left + right) / 2, (top + bottom) / 2];
}

/** The legend's text hides and shows what has its name. @param {Element} plot @param {Element} entry */
function makeButton(plot, entry) {
  const name = entry.getAttribute("data-series") ?? "";
  const alike = [...plot.querySelectorAll("[data-series]")].filter(
    (element) => element.getAttribute("data-series") === name && !element.matches(".entry"),
  );
  const toggle = () => {
    const off = entry.getAttribute("aria-pressed") === "true";
    entry.setAttribute("aria-pressed", String(!off));
    for (const element of alike) element.classList.toggle("off", off);
    if (alike.some((element) => element.matches(".front"))) plot.classList.toggle("frontless", off);
  };
  const attributes = { role: "button", tabindex: "0", "aria-pressed": "true", "aria-label": name };
  for (const [key, value] of Object.entries(attributes)) entry.setAttribute(key, value);
  for (const element of [entry, ...alike.filter((other) => other.matches(".key"))]) {
    element.addEventListener("click", toggle);
  }
  entry.addEventListener("keydown", (event) => {
    if (!["Enter", " "].includes(/** @type {KeyboardEvent} */ (event).key)) return;
    event.preventDefault();
    toggle();
  });
}

/**
 * Left and right walk along a series, up and down from one to the next.
 * @param {SVGElement[]} points @param {SVGElement} point @param {string} key
 */
function neighbour(points, point, key) {
  if (!points.includes(point)) return undefined;
  const seriesOf = (/** @type {Element} */ one) => one.closest(".series");
  const along = points.filter((other) => seriesOf(other) === seriesOf(point));
  const at = along.indexOf(point);
  if (key === "ArrowLeft" || key === "ArrowRight") {
    return along[at + (key === "ArrowRight" ? 1 : -1)] ?? point;
  }
  if (key === "ArrowUp" || key === "ArrowDown") {
    const all = [...new Set(points.map(seriesOf))];
    const to = all[(all.indexOf(seriesOf(point)) + (key === "ArrowDown" ? 1 : all.length - 1)) % all.length];
    const there = points.filter((other) => seriesOf(other) === to);
    return there[Math.min(at, there.length - 1)];
  }
  return { Home: points[0], End: points.at(-1) }[key];
}
