// A line chart in SVG whose points can be hovered over, walked through by keys and toggled by
// series. Draws what it is given (charts.py says what that is); knows nothing of the page.

const SHAPES = [
  "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z", // circle
  "M-3.6 -3.6H3.6V3.6H-3.6Z", // square
  "M0 -5L4.4 0L0 5L-4.4 0Z", // diamond
  "M0 -4.6L4.6 3.6H-4.6Z", // triangle
  "M0 4.6L4.6 -3.6H-4.6Z", // triangle upside down
  "M-1.6 -4.6H1.6V-1.6H4.6V1.6H1.6V4.6H-1.6V1.6H-4.6V-1.6H-1.6Z", // plus
];
const MARKS = {
  none: "M0 -8L2.2 -2.6L7.8 -2.4L3.4 1.2L4.8 6.6L0 3.5L-4.8 6.6L-3.4 1.2L-7.8 -2.4L-2.2 -2.6Z",
  oracle: "M0 -8L4.6 0L0 8L-4.6 0Z",
};
const CROSS = "M-3.6 -3.6L3.6 3.6M-3.6 3.6L3.6 -3.6";

/** A series' class and marker: by number for methods, by name for single marks. */
function look(name) {
  if (typeof name === "number") return [`look-${name % SHAPES.length}`, SHAPES[name % SHAPES.length]];
  return [`mark mark-${name in MARKS ? name : "cross"}`, MARKS[name] ?? CROSS];
}

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A small marker for legends and captions. */
function swatch(name) {
  const [kind, path] = look(name);
  const attributes = { class: `swatch ${kind}`, viewBox: "-9 -9 18 18", "aria-hidden": "true" };
  return svg("svg", attributes, svg("path", { d: path }));
}

/** Round numbers that divide low..high into about `count` parts, with their texts. */
function ticks(low, high, count) {
  const rough = Math.log10((high - low) / count);
  const [factor, extra] = [[1, 0], [2, 0], [2.5, 1], [5, 0], [10, 0]].reduce((best, next) => {
    const off = ([of]) => Math.abs(Math.log10(of) - (rough - Math.floor(rough)));
    return off(next) < off(best) ? next : best;
  });
  const step = factor * 10 ** Math.floor(rough);
  const first = Math.ceil(low / step - 1e-9);
  const digits = Math.max(0, extra - Math.floor(Math.log10(step) + 1e-9));
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => {
    const value = (first + i) * step;
    return [value, value.toFixed(digits)];
  });
}

const shown = (number) => String(Number(number.toPrecision(4)));
const bare = (title) => title.replace(/ [↑↓]$/, "");

/**
 * Puts `chart` into `host`, drawn to its width and again when that changes.
 * Returns {mark(places)}: show the threshold each series (by name) is at, as a filled ring.
 */
function drawChart(host, chart, { height = 380, legend = true } = {}) {
  const off = new Set();
  let marked = {};
  const plot = document.createElement("div");
  const tip = document.createElement("div");
  plot.className = "plot";
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  if (legend) host.append(drawLegend());
  host.append(plot);
  let current = null; // the point with the keyboard's focus, as [series, point]

  function drawLegend() {
    const list = document.createElement("div");
    list.className = "legend";
    list.setAttribute("role", "group");
    list.setAttribute("aria-label", "Series shown");
    const entries = [...chart.series.map(({ name, look: of }) => [name, swatch(of)])];
    if (chart.front?.length) entries.push(["Pareto front", swatchOfFront()]);
    for (const [name, icon] of entries) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(icon, name);
      button.addEventListener("click", () => {
        const hide = button.getAttribute("aria-pressed") === "true";
        button.setAttribute("aria-pressed", String(!hide));
        if (hide) off.add(name);
        else off.delete(name);
        draw();
      });
      list.append(button);
    }
    return list;
  }

  function swatchOfFront() {
    const attributes = { class: "swatch front", viewBox: "-9 -9 18 18", "aria-hidden": "true" };
    return svg("svg", attributes, svg("circle", { r: 7 }));
  }

  function limits() {
    if (chart.range) return chart.range;
    const all = chart.series.flatMap(({ points }) => points);
    return ["x", "y"].map((axis) => {
      const values = all.map((point) => point[axis]);
      const low = Math.min(...values);
      const high = Math.max(...values);
      const room = (high - low || Math.abs(high) || 1) * 0.06;
      return [low - room, high + room];
    });
  }

  function draw() {
    const width = Math.max(260, plot.clientWidth);
    const [[x0, x1], [y0, y1]] = limits();
    const levels = ticks(y0, y1, height > 300 ? 6 : 4);
    const widest = Math.max(...levels.map(([, text]) => text.length));
    const box = { left: 28 + 7 * widest, right: width - 14, top: chart.better ? 26 : 12, bottom: height - 44 };
    const x = (value) => box.left + ((value - x0) / (x1 - x0)) * (box.right - box.left);
    const y = (value) => box.bottom - ((value - y0) / (y1 - y0)) * (box.bottom - box.top);
    const root = svg("svg", { width, height, role: "group", "aria-label": `${chart.y} over ${chart.x}` });
    root.append(...axes());
    const taken = []; // rectangles that a label must not cover
    for (const { points, name } of chart.series) {
      if (!off.has(name)) cover(points.map((p) => [x(p.x), y(p.y)]));
    }
    for (const level of chart.levels ?? []) {
      root.append(
        svg("line", { class: "level", x1: box.left, x2: box.right, y1: y(level.y), y2: y(level.y) }),
        label(level.name, along(box.right - 4, box.left + 60, y(level.y) - 4), "quiet"),
      );
    }
    if (chart.front?.length && !off.has("Pareto front")) {
      const [post] = chart.better;
      const steps = chart.front.map(([px, py], i) => {
        if (!i) return `M${x(px)} ${y(py)}`;
        return post === "down" ? `H${x(px)}V${y(py)}` : `V${y(py)}H${x(px)}`;
      });
      root.append(svg("path", { class: "front-line", d: steps.join("") }));
      cover(chart.front.flatMap(([px, py], i) => {
        const [qx, qy] = chart.front[Math.max(0, i - 1)];
        const [cx, cy] = post === "down" ? [px, qy] : [qx, py];
        return [[x(cx), y(cy)], [x(px), y(py)]];
      }));
    }
    if (chart.better) root.append(betterCorner());
    const groups = [];
    chart.series.forEach((series, s) => {
      if (off.has(series.name)) return;
      const [kind, path] = look(series.look);
      const group = svg("g", { class: kind });
      if (series.points.length > 1) {
        const line = series.points.map((p, i) => `${i ? "L" : "M"}${x(p.x)} ${y(p.y)}`).join("");
        group.append(svg("path", { class: `line${series.dashed ? " dashed" : ""}`, d: line }));
      }
      series.points.forEach((point, p) => {
        const node = svg("g", {
          class: "point",
          transform: `translate(${x(point.x)} ${y(point.y)})`,
          tabindex: -1,
          role: "img",
          "aria-label": words(series, point).join(", "),
        });
        if (point.ring && !(chart.front && off.has("Pareto front"))) {
          node.append(svg("circle", { class: "ring", r: 8.5 }));
        }
        if (marked[series.name] === point.at && point.at !== null) {
          node.append(svg("circle", { class: "here", r: 6.5 }));
        }
        node.append(svg("path", { class: "symbol", d: path }));
        node.addEventListener("focus", () => show(s, p));
        node.addEventListener("blur", hide);
        group.append(node);
        groups.push({ node, s, p, x: x(point.x), y: y(point.y) });
      });
      root.append(group);
      if (typeof series.look !== "number") {
        const { x: px, y: py } = series.points[0];
        const [cx, cy] = [x(px), y(py)];
        root.append(label(series.name, around(cx, cy), "quiet"));
      }
    });
    const focused = document.activeElement?.closest?.(".plot") === plot;
    plot.replaceChildren(root, tip);
    tip.hidden = true;
    const home = groups.find(({ s, p }) => current && s === current[0] && p === current[1]) ?? groups[0];
    home?.node.setAttribute("tabindex", 0);
    if (focused) home?.node.focus();

    root.addEventListener("pointermove", (event) => {
      const at = root.getBoundingClientRect();
      const [mx, my] = [event.clientX - at.left, event.clientY - at.top];
      const distance = (g) => Math.hypot(g.x - mx, g.y - my);
      const nearest = groups.reduce((a, b) => (distance(b) < distance(a) ? b : a), groups[0]);
      if (nearest && distance(nearest) < 28) show(nearest.s, nearest.p);
      else hide();
    });
    root.addEventListener("pointerleave", hide);
    root.addEventListener("keydown", (event) => {
      const at = groups.findIndex(({ node }) => node === document.activeElement);
      const next = neighbour(groups, at, event.key);
      if (at < 0 || next === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      groups[at].node.setAttribute("tabindex", -1);
      groups[next].node.setAttribute("tabindex", 0);
      groups[next].node.focus();
    });

    function show(s, p) {
      current = [s, p];
      const group = groups.find((g) => g.s === s && g.p === p);
      for (const { node } of groups) node.classList.toggle("hover", node === group.node);
      tip.replaceChildren(
        ...words(chart.series[s], chart.series[s].points[p]).map((text, i) => {
          const line = document.createElement(i ? "div" : "strong");
          line.textContent = text;
          return line;
        }),
      );
      tip.hidden = false;
      tip.style.left = `${Math.max(0, Math.min(group.x + 14, width - tip.offsetWidth - 2))}px`;
      const above = group.y - tip.offsetHeight - 12;
      tip.style.top = `${above > 0 ? above : group.y + 14}px`;
    }

    function hide() {
      tip.hidden = true;
      for (const { node } of groups) node.classList.remove("hover");
    }

    function axes() {
      const parts = [];
      for (const [value, text] of ticks(x0, x1, width > 520 ? 7 : 4)) {
        parts.push(
          svg("line", { class: "grid", x1: x(value), x2: x(value), y1: box.top, y2: box.bottom }),
          svg("text", { class: "tick", x: x(value), y: box.bottom + 17, "text-anchor": "middle" }, text),
        );
      }
      for (const [value, text] of levels) {
        parts.push(
          svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }),
          svg("text", { class: "tick", x: box.left - 7, y: y(value) + 4, "text-anchor": "end" }, text),
        );
      }
      const middle = (box.top + box.bottom) / 2;
      parts.push(
        svg("path", { class: "axis", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}` }),
        svg("text", { class: "title", x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, chart.x),
        svg("text", { class: "title", transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" }, chart.y),
      );
      return parts;
    }

    /** Above the plot, where no point can lie. */
    function betterCorner() {
      const [right, up] = chart.better.map((direction) => direction === "up");
      const arrow = up ? (right ? "↗" : "↖") : right ? "↘" : "↙";
      const at = { class: "quiet", x: right ? box.right : box.left, y: 14, "text-anchor": right ? "end" : "start" };
      return svg("text", at, `${arrow} better`);
    }

    /** Keep labels off a series' markers and the lines between them. */
    function cover(points) {
      points.forEach(([px, py], i) => {
        taken.push([px - 7, py - 7, 14, 14]);
        if (!i) return;
        const [qx, qy] = points[i - 1];
        const count = Math.floor(Math.hypot(px - qx, py - qy) / 5);
        for (let n = 1; n < count; n++) {
          taken.push([qx + ((px - qx) * n) / count - 2, qy + ((py - qy) * n) / count - 2, 4, 4]);
        }
      });
    }

    /** Spots (x, y, anchor) around a point, the nearest first; far ones also name the point. */
    function around(cx, cy) {
      const spots = [];
      for (const reach of [11, 20, 32, 46]) {
        for (const dy of [0, -0.8, 0.8]) {
          for (const side of [1, -1]) spots.push([cx + side * reach, cy + 4 + dy * reach, side > 0 ? "start" : "end"]);
        }
        spots.push([cx, cy - reach, "middle"], [cx, cy + reach + 9, "middle"]);
        if (reach > 20) for (const spot of spots.slice(-8)) spot.push([cx, cy]);
      }
      return spots;
    }

    /** Spots on a level, from its right end on. */
    function along(right, left, at) {
      return Array.from({ length: Math.max(1, Math.floor((right - left) / 24)) }, (_, i) => [right - 24 * i, at, "end"]);
    }

    /** Text at the first of the spots where it covers nothing; if there is none, the tip names it. */
    function label(text, spots, kind) {
      const wide = text.length * 6.6;
      const rectangle = ([px, py, anchor]) => [
        anchor === "start" ? px : anchor === "end" ? px - wide : px - wide / 2,
        py - 10,
        wide,
        13,
      ];
      const inside = ([rx, ry, rw]) => rx >= box.left && rx + rw <= width && ry > box.top - 8 && ry < box.bottom - 13;
      const free = (r) =>
        inside(r) &&
        taken.every((t) => r[0] + r[2] < t[0] || t[0] + t[2] < r[0] || r[1] + r[3] < t[1] || t[1] + t[3] < r[1]);
      const spot = spots.find((at) => free(rectangle(at)));
      if (!spot) return "";
      taken.push(rectangle(spot));
      const [px, py, anchor, from] = spot;
      const words = svg("text", { class: kind, x: px, y: py, "text-anchor": anchor }, text);
      if (!from) return words;
      const [fx, fy] = from;
      const at = { class: "leader", x1: fx, y1: fy, x2: px, y2: py + (py < fy ? 3 : -4) };
      return svg("g", {}, svg("line", at), words);
    }
  }

  /** What is said of a point: its series, threshold, both values and a remark. */
  function words(series, point) {
    const lines = [point.at === null ? series.name : `${series.name} at ${shown(point.at)}`];
    if (chart.x !== "threshold") lines.push(`${bare(chart.x)} ${shown(point.x)}`);
    lines.push(`${bare(chart.y)} ${shown(point.y)}`);
    if (point.said) lines.push(point.said);
    return lines;
  }

  new ResizeObserver(() => plot.clientWidth && draw()).observe(plot);
  return {
    mark(places) {
      marked = places;
      if (plot.clientWidth) draw();
    },
  };
}

/** Left and right walk along a series, up and down from one to the next. */
function neighbour(groups, at, key) {
  if (at < 0) return undefined;
  const { s, p } = groups[at];
  if (key === "ArrowRight" || key === "ArrowLeft") {
    const next = at + (key === "ArrowRight" ? 1 : -1);
    return groups[next]?.s === s ? next : at;
  }
  if (key === "ArrowDown" || key === "ArrowUp") {
    const series = [...new Set(groups.map((group) => group.s))];
    const count = series.length;
    const to = series[(series.indexOf(s) + (key === "ArrowDown" ? 1 : count - 1)) % count];
    const last = groups.filter((group) => group.s === to).length - 1;
    return groups.findIndex((group) => group.s === to && group.p === Math.min(p, last));
  }
  return { Home: 0, End: groups.length - 1 }[key];
}
