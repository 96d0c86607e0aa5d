"""The trade-off of masked editing: what the edit gains against what the background loses.

Works on finished per-sample rows; must not know stores, stages or models.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from piebench_masks.metrics.column import Column
from piebench_masks.report.edit_tables import finite
from piebench_masks.report.methods import BASELINES, UNRANKED

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
    """Columns ``x`` and ``y`` summed up by editor, method, mask source and threshold.

    Only samples that have both values count: an edit whose mask is the whole picture has no
    background to lose, and would lend a method its gain for nothing. The column ``front`` says
    which points are on the Pareto front; rows under trivial masks and under the annotated mask
    (``mask_source`` oracle) and bounds cannot be and do not push others off it.
    """
    keys = ["editor", "method", "mask_source", "threshold"]
    rows = finite(editing, (x, y)).dropna(subset=[x, y])
    groups = rows.groupby(keys, sort=False, dropna=False)
    points = groups[[x, y]].agg({name: columns[name].statistic for name in (x, y)}).reset_index()
    ranks = (points["mask_source"] != "oracle") & ~points["method"].isin(UNRANKED)
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
