"""Draws charts: the one place that knows the drawing library, for files and for the page.

Colours are Okabe and Ito's, told apart by colour-blind readers, each with a marker of its own.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from piebench_masks.report.chart import Chart, Direction, Figure, Series
from piebench_masks.report.labels import ANYWHERE, NEAR, Label, write_labels

INK, QUIET, GRID = "#22262b", "#7a828c", "#e6e8eb"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
PAGE_COLOURS = {
    INK: "var(--ink)",
    QUIET: "var(--quiet)",
    GRID: "var(--line)",
    "#ffffff": "var(--page)",
    **{colour: f"var(--look-{look})" for look, colour in enumerate(COLOURS)},
}
"""What the page, which has a dark theme too, calls the colours."""
MARKERS = "osD^vP"
LINES = ("-", "--", ":", "-.")
IN_A_ROW = 4
KINDS = ("png", "svg", "pdf")
_ARROWS = {("down", "up"): "↖", ("up", "up"): "↗", ("down", "down"): "↙", ("up", "down"): "↘"}
_RING: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none"}
_CROSS: dict[str, Any] = {"marker": "x", "color": QUIET, "markersize": 6, "markeredgewidth": 1.5}
_MARKS: dict[str, dict[str, Any]] = {
    "none": {"marker": "*", "color": INK, "markersize": 14},
    "oracle": {"marker": "d", "color": INK, "markerfacecolor": "white", "markersize": 9},
}
_LEGENDS: dict[str, dict[str, Any]] = {
    "above": {"loc": "lower left", "bbox_to_anchor": (-0.03, 1), "borderpad": 0},
    "inside": {"loc": "best", "fontsize": 9},
}
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": GRID,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.dpi": 160,
    "svg.hashsalt": "piebench-masks",
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}
house_style = mpl.rc_context(_STYLE)
"""Decorator: everything that draws or saves a figure runs in the house style."""


def colour(look: int) -> str:
    """The colour of the method at that place."""
    return COLOURS[look % len(COLOURS)]


@house_style
def draw(figure: Figure) -> Canvas:
    """The figure on a canvas that belongs to no pyplot state.

    What belongs to a series has a gid of the chart's place, what it is (``series``, ``rings``,
    ``label``; ``legend`` and ``entry`` by the place in the legend) and the series' place, as in
    ``0-series-1``; the front's edge is ``0-front-0``.
    """
    width, height = figure.size
    columns = min(len(figure.charts), IN_A_ROW)
    rows = -(-len(figure.charts) // columns)
    above = figure.legend == "above"
    size = width * columns + 1.2 * above, height * rows
    canvas = Canvas(figsize=size, layout="constrained")
    FigureCanvasAgg(canvas)
    one_scale = len({chart.y for chart in figure.charts}) == 1
    one_range = len({(chart.x, chart.limits[0]) for chart in figure.charts}) == 1
    grid = canvas.subplots(rows, columns, sharex=one_range, sharey=one_scale, squeeze=False)
    for unused in grid.flat[len(figure.charts) :]:
        unused.set_visible(False)
    drawn = [*zip(grid.flat, figure.charts, strict=False)]
    for place, (axes, chart) in enumerate(drawn):
        _draw_chart(axes, chart, f"{place}-")
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.set_xlabel(chart.x)
        if place % columns == 0 or not one_scale:
            axes.set_ylabel(chart.y)
        if figure.legend != "right" and axes.get_legend_handles_labels()[1]:
            _name_legend(axes.legend(**_LEGENDS[figure.legend]), f"{place}-")
    if figure.legend == "right":
        entries = [axes.get_legend_handles_labels() for axes, _ in drawn]
        place = max(range(len(drawn)), key=lambda chart: len(entries[chart][1]))
        legend = canvas.legend(*entries[place], loc="outside right upper", fontsize=9)
        _name_legend(legend, f"{place}-")
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")  # laid out once: labels and all kinds of file find it so
    for place, (axes, chart) in enumerate(drawn):
        if labels := _labels(chart, f"{place}-"):
            write_labels(axes, labels)
    return canvas


@house_style
def save(canvas: Canvas, folder: Path, stem: str) -> list[Path]:
    """Write ``stem``.png, .svg and .pdf; equal figures give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    stamps = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    for kind in KINDS:
        canvas.savefig(folder / f"{stem}.{kind}", metadata=stamps[kind])
    return [folder / f"{stem}.{kind}" for kind in KINDS]


@house_style
def svg(canvas: Canvas) -> str:
    """The figure as SVG whose texts are texts, without halos: those are the page's style."""
    for label in canvas.findobj(Text):
        label.set_path_effects([])
    content = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        canvas.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _draw_chart(axes: Axes, chart: Chart, prefix: str) -> None:
    for place, series in enumerate(chart.series):
        _draw_series(axes, series, f"{prefix}series-{place}")
        ringed = [(point.x, point.y) for point in series.points if point.ringed]
        if ringed:
            edge = INK if chart.better or isinstance(series.look, str) else colour(series.look)
            (line,) = axes.plot(*np.transpose(ringed), linestyle="", color=edge, **_RING)
            line.set_gid(f"{prefix}rings-{place}")
    if chart.better:
        _draw_front(axes, chart.front, chart.better[0], prefix)
        axes.margins(0.07)
        side: Literal["left", "right"] = "left" if chart.better[0] == "down" else "right"
        axes.set_title(f"{_ARROWS[chart.better]} better", loc=side, color=QUIET, fontsize=9)
    if chart.title:
        axes.set_title(chart.title, fontsize=10)
    if chart.levels:
        _draw_levels(axes, chart.levels, (chart.limits[0] or (0, 1))[1] / 1.02)
    if chart.ticks:
        axes.set_xticks(range(len(chart.ticks)), chart.ticks)
    x_limits, y_limits = chart.limits
    if x_limits:
        axes.set_xlim(*x_limits)
    if y_limits:
        axes.set_ylim(*y_limits)


def _draw_series(axes: Axes, series: Series, gid: str) -> None:
    x, y = ([getattr(point, axis) for point in series.points] for axis in "xy")
    label = series.legend or series.name
    if isinstance(series.look, int):
        marker = MARKERS[series.look % len(MARKERS)]
        look: dict[str, Any] = {"color": colour(series.look), "marker": marker, "label": label}
        size = 4.5 if any(point.label for point in series.points) or series.dots else 3.5
        dashes = LINES[series.line % len(LINES)]
        (line,) = axes.plot(x, y, linestyle=dashes, markersize=size, **look)
        if series.dots:
            dots = np.transpose(series.dots)
            axes.plot(*dots, ".", color=colour(series.look), alpha=0.5)
    elif series.look in _MARKS:
        (line,) = axes.plot(x, y, linestyle="", label=label, **_MARKS[series.look])
    else:
        (line,) = axes.plot(x, y, linestyle="", **_CROSS)
    line.set_gid(gid)


def _draw_front(
    axes: Axes, front: Sequence[tuple[float, float]], x_direction: Direction, prefix: str
) -> None:
    """The edge of what the front attains, and its entry in the legend."""
    steps: Any = "steps-post" if x_direction == "down" else "steps-pre"
    x, y = np.reshape(front, (-1, 2)).T
    (edge,) = axes.plot(x, y, color=QUIET, linewidth=1, drawstyle=steps, zorder=1)
    edge.set_gid(f"{prefix}front-0")
    axes.plot([], [], linestyle="", color=INK, label="Pareto front", **_RING)


def _draw_levels(axes: Axes, levels: Any, end: float) -> None:
    """Dashed lines, their names staggered: the levels of trivial masks often nearly coincide."""
    for place, (name, level) in enumerate(levels.items()):
        axes.axhline(level, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        text: dict[str, Any] = {"color": QUIET, "fontsize": 8, "va": "center", "ha": "right"}
        x = end * (1 - 0.13 * (place % 3))
        axes.text(x, level, name, **text, zorder=1.5, bbox={"color": "white", "pad": 0.8})


def _name_legend(legend: Any, prefix: str) -> None:
    for place, (handle, text) in enumerate(
        zip(legend.legend_handles, legend.get_texts(), strict=True)
    ):
        handle.set_gid(f"{prefix}legend-{place}")
        text.set_gid(f"{prefix}entry-{place}")


def _labels(chart: Chart, prefix: str) -> list[Label]:
    """Names of crosses, which must be there, then labels of points, those of the front first."""
    names, points = [], []
    for place, series in enumerate(chart.series):
        gid = f"{prefix}label-{place}"
        if isinstance(series.look, int):
            look = colour(series.look)
            labelled = (point for point in series.points if point.label)
            points += [
                (not p.ringed, Label(p.label, (p.x, p.y), look, gid, NEAR)) for p in labelled
            ]
        elif not series.in_legend:
            at = series.points[0].x, series.points[0].y
            names.append(Label(series.name, at, QUIET, gid, ANYWHERE))
    points.sort(key=lambda entry: entry[0])
    return names + [label for _, label in points]
