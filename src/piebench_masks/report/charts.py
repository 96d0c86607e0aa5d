"""The figures as data, for the page's own interactive charts.

Works on finished per-sample rows; must not know stores, stages, models or how a chart is drawn.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from piebench_masks.metrics.column import Column
from piebench_masks.report.figures import method_looks
from piebench_masks.report.pareto import curves, pareto_points
from piebench_masks.report.tables import BASELINES, best_thresholds, header

Chart = dict[str, Any]
"""What chart.js draws: axis titles ``x`` and ``y``, ``series`` and, of a Pareto plot, ``front``.

A series has a ``name``, a ``look`` (its place among the learned methods, or the name of a mark)
and ``points``: x and y as they are shown, threshold ``at`` (None if there is none), ``ring`` and
what is ``said`` of it.
"""


def pareto_chart(editing: pd.DataFrame, columns: Mapping[str, Column], x: str, y: str) -> Chart:
    """The Pareto plot of two metrics: a series for each editor and method, the front ringed."""
    points = pareto_points(editing, columns, x, y).dropna(subset=[x, y])
    points = curves(points.assign(**{name: points[name] * columns[name].scale for name in (x, y)}))
    looks = list(method_looks(look for look in points["look"] if look != "none"))
    editors = list(points["editor"].unique())
    series = []
    for key, curve in points.groupby(["editor", "look", "name"], sort=False):
        editor, look, name = map(str, key)
        series.append(
            {
                "name": name,
                "look": looks.index(look) if look in looks else look,
                "dashed": editors.index(editor) > 0,
                "points": [
                    {
                        "x": row[x],
                        "y": row[y],
                        "at": None if look not in looks or pd.isna(at) else float(at),
                        "ring": bool(row["front"]),
                        "said": "on the Pareto front" if row["front"] else "",
                    }
                    for row in curve.sort_values("threshold").to_dict("records")
                    for at in [row["threshold"]]
                ],
            }
        )
    front = points.loc[points["front"], [x, y]].sort_values(x)
    return {
        "x": header(columns[x]),
        "y": header(columns[y]),
        "better": [columns[x].direction, columns[y].direction],
        "series": series,
        "front": front.to_numpy(float).tolist(),
    }


def dice_charts(segmentation: pd.DataFrame) -> list[Chart]:
    """Mean Dice over the threshold, a chart for each range of sweeps; the best point is ringed."""
    mean = segmentation.groupby(["method", "threshold"])["dice"].mean()
    looks, best = list(method_looks(segmentation["method"])), best_thresholds(segmentation)
    ends = {method: float(mean.loc[method].index.max()) for method in looks}
    levels = mean[mean.index.isin(BASELINES, level="method")].groupby(level="method").max()
    return [
        {
            "x": "threshold",
            "y": "mean Dice ↑",
            "range": [[0.0, end], [0.0, 1.0]],
            "levels": [{"name": str(name), "y": float(y)} for name, y in levels.items()],
            "series": [
                {
                    "name": method,
                    "look": place,
                    "dashed": False,
                    "points": [
                        {
                            "x": float(at),
                            "y": float(dice),
                            "at": float(at),
                            "ring": bool(np.isclose(at, best[method])),
                            "said": "the best" if np.isclose(at, best[method]) else "",
                        }
                        for at, dice in mean.loc[method].items()
                    ],
                }
                for place, method in enumerate(looks)
                if ends[method] == end
            ],
        }
        for end in sorted(set(ends.values()))
    ]
