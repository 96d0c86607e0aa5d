"""The trade-off of masked editing: what the edit gains against what the background loses.

Works on finished per-sample rows; must not know stores, stages or models.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.figure import Figure

from piebench_masks.metrics.column import Column
from piebench_masks.report.figures import INK, QUIET, house_style, method_looks, new_figure
from piebench_masks.report.tables import BASELINES, header

Direction = Literal["up", "down"]


def pareto_front(
    x: np.ndarray, y: np.ndarray, x_direction: Direction = "down", y_direction: Direction = "up"
) -> np.ndarray:
    """Which of the points (x, y) [N] no other point dominates, as bool [N].

    A point dominates another if it is at least as good in both and better in one, so of equal
    points all are on the front. Points with a missing coordinate are not.
    """
    cost_x = np.where(x_direction == "down", 1, -1) * np.asarray(x, dtype=float)
    cost_y = np.where(y_direction == "down", 1, -1) * np.asarray(y, dtype=float)
    no_worse = (cost_x[:, None] <= cost_x) & (cost_y[:, None] <= cost_y)
    better = (cost_x[:, None] < cost_x) | (cost_y[:, None] < cost_y)
    return ~(no_worse & better).any(axis=0) & ~np.isnan(cost_x + cost_y)


def hypervolume(x: np.ndarray, y: np.ndarray) -> float:
    """Area between the origin and the points [N] of which both coordinates are better if larger."""
    area = height = 0.0
    for place in np.argsort(-np.asarray(x), kind="stable"):
        area += max(0.0, x[place]) * max(0.0, y[place] - height)
        height = max(height, y[place])
    return float(area)


def pareto_points(
    editing: pd.DataFrame, columns: Mapping[str, Column], x: str, y: str
) -> pd.DataFrame:
    """Means over samples of columns ``x`` and ``y`` by editor, method, mask source and threshold.

    The column ``front`` says which of them are on the Pareto front; rows under trivial masks and
    under the annotated mask (``mask_source`` oracle) cannot be and do not push others off it.
    """
    keys = ["editor", "method", "mask_source", "threshold"]
    points = editing.groupby(keys, sort=False, dropna=False)[[x, y]].mean().reset_index()
    ranks = (points["mask_source"] != "oracle") & ~points["method"].isin(BASELINES)
    points["front"] = pareto_front(
        points[x].where(ranks).to_numpy(),
        points[y].to_numpy(),
        columns[x].direction,
        columns[y].direction,
    )
    return points


def curves(points: pd.DataFrame) -> pd.DataFrame:
    """The points with the ``name`` of their curve and its ``look``: both are the same for a curve.

    A curve is called by its method; of several editors that paint under masks by both. An editor
    with a single method, as those made elsewhere are, gives its name and has a look of its own.
    Trivial masks are left out where several editors paint: each editor's own plot has them.
    """
    several = points.groupby("editor")["method"].transform("nunique") > 1
    labels = points["method"].replace("none", "no mask")
    if points.loc[several, "editor"].nunique() > 1:
        labels = points["editor"] + ", " + labels
    named = points.assign(
        name=labels.where(several, points["editor"]),
        look=points["method"].where(several, points["editor"]),
    )
    trivial = points["method"].isin(set(BASELINES) - {"oracle"})
    return named[~trivial] if points.loc[several, "editor"].nunique() > 1 else named


@house_style
def plot_pareto(editing: pd.DataFrame, columns: Mapping[str, Column], x: str, y: str) -> Figure:
    """One curve per method over its thresholds in the plane of two metrics, the front ringed.

    Points carry their threshold where there is room. Editing without a mask, under the annotated
    mask (oracle) and under trivial masks are single marks.
    """
    points = pareto_points(editing, columns, x, y).dropna(subset=[x, y])
    points = curves(points.assign(**{name: points[name] * columns[name].scale for name in (x, y)}))
    figure = new_figure(9, 5.4)
    axes = figure.subplots()
    looks = method_looks(look for look in points["look"] if look != "none")
    editors, marks = list(points["editor"].unique()), []
    for key, curve in points.groupby(["editor", "look", "name"], sort=False):
        editor, look, name = map(str, key)
        if look in looks:
            curve, line = curve.sort_values("threshold"), _LINES[editors.index(editor) % 4]
            axes.plot(curve[x], curve[y], line, markersize=4.5, label=name, **looks[look])
        elif look in _SINGLE_MARKS:
            axes.plot(curve[x], curve[y], label=name, linestyle="", **_SINGLE_MARKS[look])
        else:
            axes.plot(curve[x], curve[y], "x", color=QUIET, markersize=6, markeredgewidth=1.5)
            marks.append((name, curve[x].iloc[0], curve[y].iloc[0]))
    _draw_front(axes, points.loc[points["front"], [x, y]].sort_values(x), columns[x].direction)
    axes.margins(0.07)
    axes.set(xlabel=header(columns[x]), ylabel=header(columns[y]))
    axes.set_title(
        f"{_ARROWS[columns[x].direction, columns[y].direction]} better",
        loc="left" if columns[x].direction == "down" else "right",
        color=QUIET,
        fontsize=9,
        fontweight="normal",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
    learned = points[points["look"].isin(looks)].sort_values("front", ascending=False)
    cuts = [
        (f"{row['threshold']:.3g}", row[x], row[y], looks[row["look"]]["color"])
        for row in learned.dropna(subset="threshold").to_dict("records")
    ]
    _label(figure, [(*mark, QUIET) for mark in marks], cuts)
    return figure


_LINES = ("-", "--", ":", "-.")
_ARROWS = {("down", "up"): "↖", ("up", "up"): "↗", ("down", "down"): "↙", ("up", "down"): "↘"}
_HALO = patheffects.withStroke(linewidth=2.5, foreground="white")
_RING: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none"}
_SINGLE_MARKS: dict[str, dict[str, Any]] = {
    "none": {"marker": "*", "color": INK, "markersize": 14},
    "oracle": {"marker": "d", "color": INK, "markerfacecolor": "white", "markersize": 9},
}
_Label = tuple[str, float, float, str]
"""Text, the point (x, y) it belongs to, and its colour."""


def _draw_front(axes: Axes, front: pd.DataFrame, x_direction: Direction) -> None:
    """Rings around the points [N,2] and the edge of what they attain."""
    steps = "steps-post" if x_direction == "down" else "steps-pre"
    axes.plot(*front.to_numpy().T, color=QUIET, linewidth=1, drawstyle=steps, zorder=1)
    axes.plot(*front.to_numpy().T, linestyle="", color=INK, label="Pareto front", **_RING)


def _label(figure: Figure, needed: Sequence[_Label], wanted: Sequence[_Label]) -> None:
    """Write labels beside their points where they cover no point, curve or other label.

    Those ``needed`` come first and go as far away as they must, with a line to their point; those
    ``wanted`` are left out where there is no room.
    """
    (axes,) = figure.axes
    figure.draw_without_rendering()  # the layout decides how far apart points are
    points = 72 / figure.dpi
    corners = axes.get_window_extent().get_points() * points
    taken = [np.empty((0, 4))]  # boxes: left, low, right, high
    for line in axes.lines:
        at = axes.transData.transform(line.get_xydata()) * points
        way = np.transpose(STEP_LOOKUP_MAP[line.get_drawstyle()](*at.T))
        steps = [np.linspace(a, b, 2 + int(np.hypot(*(b - a)) / 4)) for a, b in pairwise(way)]
        path = np.concatenate(steps) if steps and line.get_linestyle() != "None" else at[:0]
        half = max(4.0, line.get_markersize() / 2 + 1)
        taken += [np.hstack([of - size, of + size]) for of, size in ((at, half), (path, 2))]
    boxes = np.concatenate(taken)
    for text, x, y, colour in (*needed, *wanted):
        at = axes.transData.transform((x, y)) * points
        half_size = np.array([0.31 * _LETTERS * len(text) + 1, 0.6 * _LETTERS])
        for reach in (6, 14, 24, 36, 50) if (text, x, y, colour) in needed else (6, 10):
            spots = at + _AROUND * (half_size + reach)
            ends = np.hstack([spots - half_size, spots + half_size])
            apart = (ends[:, None, :2] >= boxes[:, 2:]) | (ends[:, None, 2:] <= boxes[:, :2])
            inside = np.hstack([ends[:, :2] - corners[0], corners[1] - ends[:, 2:]]) > 0
            free = np.all(np.any(apart, axis=2), axis=1) & np.all(inside, axis=1)
            if free.any():
                spot = int(free.argmax())
                boxes = np.vstack([boxes, ends[spot]])
                leader = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6}
                axes.annotate(
                    text,
                    (x, y),
                    tuple(spots[spot] - at),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    fontsize=_LETTERS,
                    color=colour,
                    path_effects=[_HALO],
                    arrowprops=leader if reach > 10 else None,
                )
                break


_LETTERS = 8.5
"""Size of labels in points."""
_AROUND = np.array([(1, 0), (1, -1), (1, 1), (-1, 1), (-1, -1), (-1, 0), (0, 1), (0, -1)])
"""Directions in which a label may lie, the first that is free is taken."""
