"""Do better masks make better edits? The Dice of each mask against what the edit under it gained.

Gets frames of per-sample rows; must not know stores, stages or models.
"""

from collections.abc import Mapping
from math import nan

import numpy as np
import pandas as pd

from piebench_masks.metrics.column import Column
from piebench_masks.report.chart import Chart, Figure, Point, Series
from piebench_masks.report.edit_tables import headlines
from piebench_masks.report.methods import edit_types, editors_of, learned_methods
from piebench_masks.report.names import header
from piebench_masks.report.statistics import rank_correlation
from piebench_masks.report.table import MISSING, Format, Table

ROLES = ("background", "edit", "target")
BINS = 10
SHOWN = (0.01, 0.99)
"""The quantiles of the gains where axes end."""
MOST_DOTS = 1500
"""Of a chart: more are thinned out evenly."""
FEWEST = 20
"""Samples with a gain that a correlation needs: the bootstrap's interval of fewer is too narrow."""


def gains(
    masks: pd.DataFrame, edits: pd.DataFrame, columns: Mapping[str, Column]
) -> dict[str, pd.DataFrame]:
    """By column that stands for a role: rows of every sample, method and threshold with the mask's
    ``dice`` and the ``gain`` of the edit over the one without a mask, larger is better.
    """
    if not len(masks) or not len(edits):
        return {}
    chosen = headlines(edits, columns)
    found = {}
    learned = edits[edits["method"].isin(learned_methods(masks["method"]))]
    for role in ROLES:
        if role not in chosen:
            continue
        name = chosen[role]
        free = edits.loc[edits["method"] == "none", ["sample", "editor", name]]
        rows = learned[["sample", "edit_type", "editor", "method", "threshold", name]]
        rows = rows.merge(free, on=["sample", "editor"], suffixes=("", "_free"))
        rows = rows.merge(masks[["sample", "method", "threshold", "dice"]])
        sign = 1 if columns[name].direction == "up" else -1
        rows["gain"] = sign * (rows[name] - rows[f"{name}_free"]) * columns[name].scale
        rows = rows[np.isfinite(rows["gain"])]
        if len(rows):
            found[name] = rows[["sample", "edit_type", "editor", "method", "dice", "gain"]]
    return found


def worth_table(found: Mapping[str, pd.DataFrame], columns: Mapping[str, Column]) -> Table:
    """Spearman's correlation of Dice and gain, a column a score: by edit type and overall, or by
    editor where there are several. Of fewer than ``FEWEST`` samples there is none.
    """
    everything = pd.concat(found.values())
    editors = editors_of(everything)
    key = "editor" if len(editors) > 1 else "edit_type"
    labels = editors if len(editors) > 1 else [*edit_types(everything), "Overall"]
    table = []
    for label in labels:
        row: dict[str, object] = {key: label}
        for name, rows in found.items():
            part = rows if label == "Overall" else rows[rows[key] == label]
            row[f"{name}_n"] = part["sample"].nunique()
            row[name], row[f"{name}_low"], row[f"{name}_high"] = _correlation(part)
        table.append(row)
    formats = {key: Format("Editor" if key == "editor" else "Edit type")}
    for name in found:
        label = columns[name].label
        formats[f"{name}_n"] = Format(
            f"n {label}", digits=0, meaning=f"samples with a gain in {label}", secondary=True
        )
        formats[name] = Format(
            f"{label} [95 %]",
            digits=2,
            interval=(f"{name}_low", f"{name}_high"),
            meaning=f"Spearman's correlation with the gain in {header(columns[name])}",
        )
    return Table(
        title="Do better masks make better edits?",
        frame=pd.DataFrame(table),
        formats=formats,
        notes=(
            "Spearman's correlation of a mask's Dice with what the edit under it gains over the "
            "edit without a mask, over samples, learned methods and thresholds; 1: the better "
            "the mask, the more it gains; 95 % interval by a bootstrap over samples. "
            f"{MISSING}: fewer than {FEWEST} samples, or equal values.",
        ),
        sections=frozenset({len(table) - 1} if labels[-1] == "Overall" and len(table) > 1 else ()),
    )


def _correlation(rows: pd.DataFrame) -> tuple[float, float, float]:
    if rows["sample"].nunique() < FEWEST:
        return nan, nan, nan
    dice, gain = rows["dice"].to_numpy(float), rows["gain"].to_numpy(float)
    value, low, high = rank_correlation(dice, gain, rows["sample"].to_numpy())
    return float(value), float(low), float(high)


def worth_figure(found: Mapping[str, pd.DataFrame], columns: Mapping[str, Column]) -> Figure:
    """A chart a score: a dot an edit, a line through the means of equal parts of the edits of a
    method, or of an editor where there are several.
    """
    charts = []
    several = len(editors_of(pd.concat(found.values()))) > 1
    for name, rows in found.items():
        low, high = np.quantile(rows["gain"], SHOWN)
        room = 0.05 * (high - low) or 1.0
        series = []
        for look, (label, group) in enumerate(
            rows.groupby("editor" if several else "method", sort=False)
        ):
            part = group[["dice", "gain"]]
            some = part.iloc[:: -(-len(rows) // MOST_DOTS)]
            some = some[some["gain"].between(low, high)]
            ordered = part.sort_values("dice", kind="stable").to_numpy(float)
            tenths = (tenth for tenth in np.array_split(ordered, BINS) if len(tenth))
            means = (tenth.mean(axis=0) for tenth in tenths)
            points = [Point(float(x), float(y)) for x, y in means]
            dots = list(some.itertuples(index=False, name=None))
            series.append(Series(str(label), look, points, dots=dots))
        gain = f"gain in {columns[name].label} over no mask"
        limits = (-0.02, 1.02), (float(low - room), float(high + room))
        charts.append(Chart("Dice of the mask", gain, series, limits=limits))
    return Figure(
        "Do better masks make better edits?",
        "A dot an edit under a mask (some of many; the outermost hundredths lie beyond the axes); "
        "lines through the means of tenths of them. Above 0 the edit under the mask is better than "
        "the one without.",
        charts,
        "above",
        (4.2, 4.2),
    )


def worth_sentences(found: Mapping[str, pd.DataFrame], columns: Mapping[str, Column]) -> list[str]:
    """A sentence for each editor that answers the question for its edits."""
    sentences = []
    for editor in editors_of(pd.concat(found.values())):
        answers = []
        for name, rows in found.items():
            part = rows[rows["editor"] == editor]
            value, low, high = _correlation(part)
            samples = part["sample"].nunique()
            if samples < FEWEST:
                answer = f"too few samples to say ({samples}, of {FEWEST} at least)"
            elif np.isnan(low):
                continue
            else:
                verdict = "yes" if low > 0 else "no, on the contrary" if high < 0 else "not seen"
                answer = f"{verdict} ({value:.2f} [{low:.2f}, {high:.2f}], n = {samples})"
            answers.append(f"{columns[name].label}: {answer}")
        if answers:
            sentences.append(
                f"Do better masks make better edits by {editor}? By Spearman's correlation of Dice "
                f"with the gain over the edit without a mask, in {'; '.join(answers)}."
            )
    return sentences
