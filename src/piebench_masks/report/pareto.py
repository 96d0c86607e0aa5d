"""The trade-off of masked editing: what the edit gains against what the background loses.

Works on finished per-sample rows; must not know stores, stages or models.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from piebench_masks.metrics.column import Column
from piebench_masks.report.figures import INK, QUIET, house_style, method_looks, new_figure
from piebench_masks.report.tables import header

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

    The column ``front`` says which of them are on the Pareto front; rows under the annotated mask
    (``mask_source`` oracle) cannot be and do not push others off it.
    """
    keys = ["editor", "method", "mask_source", "threshold"]
    points = editing.groupby(keys, sort=False, dropna=False)[[x, y]].mean().reset_index()
    ranks = points["mask_source"] != "oracle"
    points["front"] = pareto_front(
        points[x].where(ranks).to_numpy(),
        points[y].to_numpy(),
        columns[x].direction,
        columns[y].direction,
    )
    return points


@house_style
def plot_pareto(editing: pd.DataFrame, columns: Mapping[str, Column], x: str, y: str) -> Figure:
    """One curve per method over its thresholds in the plane of two metrics, the front ringed.

    A few points carry their threshold. Editing without a mask, under the annotated mask (oracle)
    and under trivial masks are single marks.
    """
    points = pareto_points(editing, columns, x, y).dropna(subset=[x, y])
    points = points.assign(**{name: points[name] * columns[name].scale for name in (x, y)})
    figure = new_figure(8, 5.6)
    axes = figure.subplots()
    looks = method_looks(method for method in points["method"] if method != "none")
    editors = list(points["editor"].unique())
    for key, curve in points.groupby(["editor", "method"], sort=False):
        editor, method = map(str, key)
        name = method if len(editors) == 1 else f"{editor}, {method}"
        if method in looks:
            curve, line = curve.sort_values("threshold"), _LINES[editors.index(editor) % 4]
            axes.plot(curve[x], curve[y], line, markersize=4.5, label=name, **looks[method])
        elif method in _SINGLE_MARKS:
            name = name.replace("none", "no mask")
            axes.plot(curve[x], curve[y], label=name, linestyle="", **_SINGLE_MARKS[method])
        else:
            axes.plot(curve[x], curve[y], "x", color=QUIET, markersize=6, markeredgewidth=1.5)
            at = (curve[x].iloc[0], curve[y].iloc[0])
            axes.annotate(
                name, at, (6, 5), **_BESIDE, color=QUIET, fontsize=8, path_effects=[_HALO]
            )
    _draw_front(axes, points.loc[points["front"], [x, y]].sort_values(x), columns[x].direction)
    axes.margins(0.07)
    _label_thresholds(figure, points[points["method"].isin(looks)], x, y, looks)
    axes.set(xlabel=header(columns[x]), ylabel=header(columns[y]))
    _point_to_better_corner(axes, columns[x].direction, columns[y].direction)
    axes.legend(loc="best", fontsize=9)
    return figure


_LINES = ("-", "--", ":", "-.")
_BESIDE: dict[str, Any] = {"textcoords": "offset points"}
_HALO = patheffects.withStroke(linewidth=2.5, foreground="white")
_RING: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none"}
_SINGLE_MARKS: dict[str, dict[str, Any]] = {
    "none": {"marker": "*", "color": INK, "markersize": 14},
    "oracle": {"marker": "d", "color": INK, "markerfacecolor": "white", "markersize": 9},
}


def _draw_front(axes: Axes, front: pd.DataFrame, x_direction: Direction) -> None:
    """Rings around the points [N,2] and the edge of what they attain."""
    steps = "steps-post" if x_direction == "down" else "steps-pre"
    axes.plot(*front.to_numpy().T, color=QUIET, linewidth=1, drawstyle=steps, zorder=1)
    axes.plot(*front.to_numpy().T, linestyle="", color=INK, label="Pareto front", **_RING)


def _label_thresholds(
    figure: Figure, points: pd.DataFrame, x: str, y: str, looks: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write thresholds beside the points that have room for it, the front's first."""
    (axes,) = figure.axes
    figure.draw_without_rendering()  # the layout decides how far apart points are
    pixels = axes.transData.transform(points[[x, y]].to_numpy()) * 72 / figure.dpi
    same = (points["method"] == points["method"].shift()).to_numpy()[1:]
    taken, labels = np.vstack([pixels, (pixels[1:] + pixels[:-1])[same] / 2]), np.empty((0, 2))
    offsets = np.array([(14, -8), (-14, 8), (14, 8), (-14, -8)])
    for row in np.argsort(~points["front"].to_numpy(), kind="stable"):
        spots = pixels[row] + offsets
        # Letters are twice as wide as high: measure room in these proportions.
        room = np.abs((spots[:, None] - taken) / (2, 1)).max(axis=2).min(axis=1)
        if room.max() < 6.5 or (np.hypot(*(labels - pixels[row]).T) < 45).any():
            continue
        best, point = int(room.argmax()), points.iloc[row]
        taken, labels = np.vstack([taken, spots[best]]), np.vstack([labels, spots[best]])
        text, at = f"{point['threshold']:.3g}", (point[x], point[y])
        style: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": 8,
            "path_effects": [_HALO],
        }
        colour = looks[point["method"]]["color"]
        axes.annotate(text, at, tuple(offsets[best]), **_BESIDE, **style, color=colour)


def _point_to_better_corner(axes: Axes, x_direction: Direction, y_direction: Direction) -> None:
    """A small arrow in the corner where both metrics are at their best."""
    left, low = x_direction == "down", y_direction == "down"
    corner = (0.015 if left else 0.985, 0.02 if low else 0.98)
    start = (0.09 if left else 0.91, 0.1 if low else 0.9)
    inside: dict[str, Any] = {"xycoords": "axes fraction", "color": QUIET, "fontsize": 9}
    arrow = {"arrowstyle": "-|>", "color": QUIET}
    axes.annotate("better", corner, start, textcoords="axes fraction", arrowprops=arrow, **inside)
