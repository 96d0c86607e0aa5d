"""The figures of runs and sweeps, described: what edits trade, Dice over thresholds and settings.

Works on finished per-sample rows; must not know stores, stages, models or how a chart is drawn.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from piebench_masks.metrics.column import Column
from piebench_masks.report.chart import Chart, Figure, Point, Series
from piebench_masks.report.edit_tables import headlines
from piebench_masks.report.leakage import level_marks
from piebench_masks.report.methods import (
    BASELINES,
    BOUNDS,
    best_thresholds,
    editors_of,
    learned_methods,
)
from piebench_masks.report.names import header
from piebench_masks.report.pareto import curves, pareto_points
from piebench_masks.report.worth import worth_figure

PARETO = "Keeping the background against doing the edit"
FRONT = (
    "Rings and the grey line are the Pareto front: what no other point beats in both. Trivial "
    "masks, the oracle, which edits under the annotated mask, and the bounds of all edits "
    "(identity: the source as it is; target: the true edit) do not rank. Means of the samples "
    "that have both values."
)
ONE_EDITOR = "The same of one editor, with the trivial masks."
DICE = "Agreement with the annotated masks over the threshold"
DICE_CAPTION = (
    "Mean Dice over all samples, the best threshold ringed. Dashed: masks made without a model "
    "and, as the best that the map's grid allows, the oracle."
)


def method_places(methods: Iterable[str]) -> dict[str, int]:
    """Every learned method's place in the given order, which is its look in all charts."""
    return {method: place for place, method in enumerate(learned_methods(methods))}


def figures(
    masks: pd.DataFrame,
    edits: pd.DataFrame,
    columns: Mapping[str, Column],
    found: Mapping[str, pd.DataFrame] = MappingProxyType({}),
    knows: Mapping[str, str] = MappingProxyType({}),
    protocol: str = "",
) -> dict[str, Figure]:
    """By file name; of several editors that were given masks each has a Pareto plot of its own too.

    There is no Pareto plot where the edits have no column of the background or of the edit. found:
    what masked edits gain, by column; knows: the leak levels of methods, which stand behind their
    names where they differ; protocol: under which all was scored.
    """
    made: dict[str, Figure] = {}
    axes = headlines(edits, columns)
    if "background" in axes and "edit" in axes:
        x, y = axes["background"], axes["edit"]
        made["pareto"] = pareto_figure(edits, columns, x, y)
        masked = editors_of(edits[~edits["method"].isin(("none", "predicted", "oracle"))])
        for number, editor in enumerate(masked if len(editors_of(edits)) > 1 else (), 1):
            stem = "_".join(("pareto", str(number), *re.findall(r"\w+", editor, re.ASCII)))
            rows = edits[(edits["editor"] == editor) | edits["method"].isin(BOUNDS)]
            chart = pareto_chart(scaled_points(rows, columns, x, y), columns, x, y)
            made[stem] = Figure(f"{PARETO}: {editor}", ONE_EDITOR, [chart], "right", PARETO_SIZE)
    if len(masks):
        made["dice"] = dice_figure(masks)
    if found:
        made["worth"] = worth_figure(found, columns)
    under = f" Protocol: {protocol}." if protocol else ""
    marks = level_marks(knows)
    return {
        stem: replace(
            figure,
            caption=f"{figure.caption}{under}",
            charts=[chart.marked(marks) for chart in figure.charts],
        )
        for stem, figure in made.items()
    }


PARETO_SIZE, ONE_OF_MANY_SIZE = (9.0, 5.4), (4.0, 3.6)
TOGETHER = 3
"""So many editors, each under several masks, are told apart in one chart."""


def pareto_figure(editing: pd.DataFrame, columns: Mapping[str, Column], x: str, y: str) -> Figure:
    """The trade-off of all edits in the plane of two metrics, in a chart for all editors.

    Of more than three editors each has a chart, in which the front is that of all.
    """
    swept = editing.groupby(["editor", "method"])["threshold"].nunique().max() > 1
    what = "One curve a method, one point a threshold." if swept else "One point a method."
    points = scaled_points(editing, columns, x, y)
    many = points.groupby("editor", sort=False)["method"].nunique() > 1
    if many.sum() <= TOGETHER:
        chart = pareto_chart(points, columns, x, y)
        return Figure(PARETO, f"{what} {FRONT}", [chart], "right", PARETO_SIZE)
    bounds = points["method"].isin(BOUNDS)
    charts = [
        replace(pareto_chart(points, columns, x, y, shown=of_editor | bounds), title=editor)
        for editor in editors_of(points)
        for of_editor in [points["editor"] == editor]
    ]
    what = f"One chart an editor; the front is that of all. {what}"
    return Figure(PARETO, f"{what} {FRONT}", charts, "right", ONE_OF_MANY_SIZE)


def scaled_points(
    editing: pd.DataFrame, columns: Mapping[str, Column], x: str, y: str
) -> pd.DataFrame:
    """The points of both metrics in the units that are shown."""
    points = pareto_points(editing, columns, x, y).dropna(subset=[x, y])
    return points.assign(**{name: points[name] * columns[name].scale for name in (x, y)})


def pareto_chart(
    points: pd.DataFrame,
    columns: Mapping[str, Column],
    x: str,
    y: str,
    shown: pd.Series | None = None,
) -> Chart:
    """A curve for each editor and method over its thresholds, the front ringed.

    Editing without a mask, under the annotated mask (oracle) and under trivial masks are single
    marks. shown: which of the points are; the front is that of all.
    """
    front = points.loc[points["front"], [x, y]].sort_values([x, y])
    points = curves(points if shown is None else points[shown])
    places = method_places(look for look in points["look"] if look != "none")
    editors = list(points["editor"].unique())
    series = []
    for key, curve in points.groupby(["editor", "look", "name"], sort=False):
        editor, look, name = map(str, key)
        rows = curve.sort_values("threshold").to_dict("records")
        described = [_trade_off(row, x, y, named=look in places) for row in rows]
        series.append(Series(name, places.get(look, look), described, editors.index(editor)))
    return Chart(
        header(columns[x]),
        header(columns[y]),
        series,
        better=(columns[x].direction, columns[y].direction),
        front=[(float(a), float(b)) for a, b in front.to_numpy()],
    )


def _trade_off(row: Mapping[Any, Any], x: str, y: str, *, named: bool) -> Point:
    """A mean as a point; ``named``: by its threshold, where it has one."""
    at = float(row["threshold"]) if named and pd.notna(row["threshold"]) else None
    front = bool(row["front"])
    return Point(
        float(row[x]),
        float(row[y]),
        at,
        label="" if at is None else f"{at:.3g}",
        ringed=front,
        note="on the Pareto front" if front else "",
    )


def dice_figure(segmentation: pd.DataFrame) -> Figure:
    """Mean Dice over the threshold, a chart for each range of sweeps; the best point is ringed."""
    mean = segmentation.groupby(["method", "threshold"])["dice"].mean()
    best = best_thresholds(segmentation)
    ends = {m: float(mean.loc[m].index.max()) for m in method_places(segmentation["method"])}
    lines = mean[mean.index.isin(BASELINES, level="method")].groupby(level="method").max()
    levels = {str(name): float(dice) for name, dice in lines.sort_values().items()}
    series = []
    for place, method in enumerate(ends):
        at = best[method]
        points = [
            Point(
                float(threshold),
                float(dice),
                float(threshold),
                ringed=bool(np.isclose(threshold, at)),
                note="the best" if np.isclose(threshold, at) else "",
            )
            for threshold, dice in mean.loc[method].items()
        ]
        legend = f"{method}: {mean.loc[method].max():.2f} at {at:.3g}"
        series.append(Series(method, place, points, legend=legend))
    charts = [
        Chart(
            "threshold",
            "mean Dice ↑",
            [one for one in series if ends[one.name] == end],
            limits=((0.0, end * 1.02), (0.0, 1.02)),
            levels=levels,
        )
        for end in sorted(set(ends.values())) or [1.0]
    ]
    return Figure(DICE, DICE_CAPTION, charts, "above", (4.2, 4.2))


def sweep_figure(runs: pd.DataFrame, swept: Sequence[str]) -> Figure:
    """Dice over the first swept setting: a dot a run, a line a method through the means."""
    setting = next((name for name in swept if name != "seed"), "seed")
    places = {value: place for place, value in enumerate(sorted(runs[setting].unique()))}
    series = []
    for method, look in method_places(runs["method"]).items():
        rows = runs[runs["method"] == method]
        means = rows.groupby(setting)["dice"].mean()
        points = [Point(places[value], float(dice)) for value, dice in means.items()]
        dots = list(zip(rows[setting].map(places), rows["dice"], strict=True))
        series.append(Series(method, look, points, dots=dots))
    ticks = [str(value) for value in places]
    chart = Chart(setting, "mean Dice ↑", series, limits=(None, (0, 1.02)), ticks=ticks)
    return Figure("Dice over the settings", "", [chart])
