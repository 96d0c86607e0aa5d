"""Where the labels of a chart's points may lie: beside their points, covering nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cbook import STEP_LOOKUP_MAP

_HALO = patheffects.withStroke(linewidth=2.5, foreground="white")
_LEADER = {"arrowstyle": "-", "color": "#7a828c", "linewidth": 0.6}
"""The line from a label that is far away to its point."""


@dataclass(frozen=True)
class Label:
    """A text for the point (x, y); ``reaches``: how far away it may lie, in points."""

    text: str
    point: tuple[float, float]
    colour: str
    gid: str
    reaches: Sequence[int]


NEAR, ANYWHERE = (6, 10), (6, 14, 24, 36, 50)
"""Of labels that are left out where there is no room, and of those that must be written."""
_LETTERS = 8.5
"""Size of labels in points."""
_AROUND = np.array([(1, 0), (1, -1), (1, 1), (-1, 1), (-1, -1), (-1, 0), (0, 1), (0, -1)])
"""Directions in which a label may lie, the first that is free is taken."""


def write_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write labels where they cover no point, curve or earlier label, else leave them out.

    The figure is laid out: that decides how far apart points are.
    """
    boxes = _covered(axes)
    for label in labels:
        boxes = _write(axes, label, boxes)


def _covered(axes: Axes) -> np.ndarray:
    """What points and curves cover, as boxes [N,4] in points: left, low, right, high."""
    unit = 72 / axes.figure.dpi
    boxes = [np.empty((0, 4))]
    for line in axes.lines:
        if not len(line.get_xydata()):  # type: ignore[arg-type]
            continue
        at = axes.transData.transform(line.get_xydata()) * unit
        path = np.transpose(STEP_LOOKUP_MAP[line.get_drawstyle()](*at.T))
        steps = [np.linspace(a, b, 2 + int(np.hypot(*(b - a)) / 4)) for a, b in pairwise(path)]
        drawn = np.concatenate(steps) if steps and line.get_linestyle() != "None" else at[:0]
        half = max(4.0, line.get_markersize() / 2 + 1)
        boxes += [np.hstack([of - size, of + size]) for of, size in ((at, half), (drawn, 2))]
    return np.concatenate(boxes)


def _write(axes: Axes, label: Label, boxes: np.ndarray) -> np.ndarray:
    """Write a label at the first free spot around its point; the boxes that are covered then."""
    unit = 72 / axes.figure.dpi
    corners = axes.get_window_extent().get_points() * unit
    at = axes.transData.transform(label.point) * unit
    half_size = np.array([0.31 * _LETTERS * len(label.text) + 1, 0.6 * _LETTERS])
    for reach in label.reaches:
        spots = at + _AROUND * (half_size + reach)
        ends = np.hstack([spots - half_size, spots + half_size])
        apart = (ends[:, None, :2] >= boxes[:, 2:]) | (ends[:, None, 2:] <= boxes[:, :2])
        inside = np.hstack([ends[:, :2] - corners[0], corners[1] - ends[:, 2:]]) > 0
        free = np.all(np.any(apart, axis=2), axis=1) & np.all(inside, axis=1)
        if free.any():
            spot = int(free.argmax())
            written = axes.annotate(
                label.text,
                label.point,
                tuple(spots[spot] - at),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=_LETTERS,
                color=label.colour,
                path_effects=[_HALO],
                arrowprops=_LEADER if reach > 10 else None,
            )
            written.set_gid(label.gid)
            return np.vstack([boxes, ends[spot]])
    return boxes
