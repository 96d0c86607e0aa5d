"""Tables of mask methods: agreement with the annotation by edit type, by method, by threshold.

Gets frames of per-sample rows, returns finished tables; must not know stores, stages or models.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from piebench_masks.metrics.segmentation import COLUMNS
from piebench_masks.report.leakage import by_level
from piebench_masks.report.methods import (
    BASELINES,
    TRIVIAL,
    at_thresholds,
    best_thresholds,
    edit_types,
    learned_methods,
    order_methods,
)
from piebench_masks.report.names import header
from piebench_masks.report.ranking import best_cells, best_labels
from piebench_masks.report.statistics import bootstrap, cross_validated
from piebench_masks.report.table import Format, Table

COUNT = Format("n", digits=0, meaning="number of samples", secondary=True)
DICE_MEANING = COLUMNS["dice"].meaning
FURTHER = ("dice_inner", "boundary_f", "boundary_iou", "average_precision")
PER_IMAGE = "Dice with every image at its own best threshold, which no method can know"


def dice_table(
    segmentation: pd.DataFrame,
    thresholds: Mapping[str, float] | Literal["best"] = "best",
    knows: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """Mean Dice by edit type and method, the paper's layout; Overall is the mean over SAMPLES.

    Types without samples have no row; samples of a single type have that of Overall only. Methods
    rank among those of their leak level, ``knows``.
    The csv file also has the ends of each mean's 95 % bootstrap interval.
    """
    rows, note = _chosen(segmentation, thresholds)
    methods = order_methods(rows["method"])
    # The samples' order decides which of them the bootstrap draws, here and elsewhere.
    dice = rows.pivot(index="sample", columns="method", values="dice")[methods].sort_index()
    type_of = rows.drop_duplicates("sample").set_index("sample")["edit_type"].reindex(dice.index)
    present = edit_types(rows)
    groups = {label: dice[type_of == label] for label in present if len(present) > 1}
    groups["Overall"] = dice
    frame = pd.DataFrame([group.mean() for group in groups.values()])
    frame.insert(0, "edit_type", list(groups))
    frame.insert(1, "n", [len(group) for group in groups.values()])
    ends = np.stack([bootstrap(group.to_numpy(dtype=float)) for group in groups.values()])
    for column, method in enumerate(methods):
        frame[f"{method}_low"], frame[f"{method}_high"] = ends[:, :, column].T
    learned = learned_methods(methods)
    best = set()
    for level in by_level(knows.get(name, "nothing") for name in learned):
        ranking = list(np.array(learned)[level])
        for row, values in enumerate(frame[ranking].round(2).to_numpy()):
            best |= {(row, method) for method in best_labels(pd.Series(values, ranking), "up")}
    return Table(
        title="Dice ↑ by edit type",
        frame=frame,
        formats={
            "edit_type": Format("Edit type"),
            "n": COUNT,
            **{method: Format(method, digits=2) for method in methods},
        },
        notes=(note, f"Overall: mean over samples. {TRIVIAL}"),
        best=frozenset(best),
        sections=frozenset({len(groups) - 1}),
    )


def method_table(
    segmentation: pd.DataFrame,
    thresholds: Mapping[str, float] | Literal["best"] = "best",
    knows: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """One row per mask method: scores at its threshold, over its sweep, and its degenerate masks.

    Scores of ``segmentation.COLUMNS`` that the rows lack are left out. The interval of Dice is the
    95 % percentile bootstrap over samples, the same resamples for all methods, from a fixed seed.
    knows: the methods' leak levels, a column where they are given.
    """
    rows, note = _chosen(segmentation, thresholds)
    by_method = rows.groupby("method")
    dice = rows.pivot(index="sample", columns="method", values="dice")
    low, high = bootstrap(dice.to_numpy(dtype=float))
    sweep = segmentation.groupby("method")["threshold"].nunique().gt(1)
    per_sample = segmentation.groupby(["method", "sample"])["dice"]
    further = [name for name in FURTHER if name in rows]
    scores = ["dice", "precision", "recall", "iou", *further]
    frame = by_method[scores].mean()
    frame["threshold"] = by_method["threshold"].first()
    frame["dice_low"], frame["dice_high"] = (pd.Series(end, dice.columns) for end in (low, high))
    frame["dice_mean"] = per_sample.mean().groupby(level="method").mean().where(sweep)
    frame["dice_per_image"] = per_sample.max().groupby(level="method").mean().where(sweep)
    frame["full"] = by_method["area"].agg(lambda area: (area >= 1).mean())
    frame["empty"] = by_method["area"].agg(lambda area: (area <= 0).mean())
    frame["constant"] = by_method["constant"].mean()
    frame["undefined"] = 1 - by_method["sample"].nunique() / rows["sample"].nunique()
    frame = frame.loc[order_methods(rows["method"])].reset_index()
    formats = _method_formats(scores)
    if knows:
        frame.insert(1, "knows", frame["method"].map(knows))
        level = Format("Knows", meaning="how much of the answer the method is told")
        formats = {"method": formats.pop("method"), "knows": level, **formats}
    ranked = dict.fromkeys(["dice", "iou", *further, "dice_mean", "dice_per_image"], "up")
    baselines = frame["method"].isin(BASELINES)
    return Table(
        title="Mask methods",
        frame=frame,
        formats=formats,
        notes=(
            note,
            f"Dice with its 95 % interval (bootstrap over samples). {TRIVIAL} Nor do precision and "
            "recall: a trivial mask has the best of each.",
            "Sweep mean: Dice over all thresholds. Per image: Dice with every image at its own "
            "best threshold, which no method can know.",
            "Full, empty: share of masks that are all ones or empty. Nothing found, no map: of "
            "samples whose map is constant, and whose map is not finite or not defined.",
        ),
        best=best_cells(frame, formats, ranked),
        sections=frozenset(frame.index[baselines][:1]),
        muted=frozenset(frame.index[baselines]),
    )


def _method_formats(scores: list[str]) -> dict[str, Format]:
    headings = {name: header(COLUMNS[name]) for name in scores}
    formats = {n: Format(h, digits=3, meaning=COLUMNS[n].meaning) for n, h in headings.items()}
    dice = Format(
        "Dice ↑ [95 %]", digits=3, interval=("dice_low", "dice_high"), meaning=DICE_MEANING
    )
    mean = "Dice averaged over all thresholds of the method"
    full, empty = "share of masks that cover the whole image", "share of masks without a pixel"
    constant = "share of samples whose map has one value: nothing was found, or asked for"
    lost = "share of samples for which the method has no map"
    return {
        "method": Format("Method"),
        "threshold": Format("Threshold", digits=2),
        **formats,
        "dice": dice,
        "dice_mean": Format("Sweep mean ↑", digits=3, meaning=mean),
        "dice_per_image": Format("Per image ↑", digits=3, meaning=PER_IMAGE),
        "full": Format("Full %", digits=1, scale=100, meaning=full),
        "empty": Format("Empty %", digits=1, scale=100, meaning=empty),
        "constant": Format("Nothing found %", digits=1, scale=100, meaning=constant),
        "undefined": Format("No map %", digits=1, scale=100, meaning=lost),
    }


def threshold_table(segmentation: pd.DataFrame, defaults: Mapping[str, float]) -> Table:
    """Mean Dice of each method that has a sweep under every way to choose its threshold.

    defaults: the thresholds fixed in advance. Cross-validated: chosen on a random half of the
    samples, scored on the other, both ways round, for 100 splits from a fixed seed; with the mean
    and the range of what was chosen.
    """
    rows = []
    for method in order_methods(segmentation["method"]):
        dice = by_threshold(segmentation, method, "dice")
        if dice.shape[1] < 2 or len(dice) < 2:
            continue
        mean, grid = dice.mean(), dice.columns.to_numpy(float)
        chosen, held_out = cross_validated(dice.to_numpy(float))
        fixed = int(np.abs(grid - defaults[method]).argmin())
        rows.append(
            {
                "method": method,
                "fixed_at": grid[fixed],
                "fixed": mean.iloc[fixed],
                "best_at": grid[mean.to_numpy().argmax()],
                "best": mean.max(),
                "cross_validated_at": grid[chosen].mean(),
                "cross_validated_lowest": grid[chosen].min(),
                "cross_validated_highest": grid[chosen].max(),
                "cross_validated": held_out.mean(),
                "per_image": dice.max(axis=1).mean(),
            }
        )
    ends = ("cross_validated_lowest", "cross_validated_highest")
    dice_format = Format("Dice", digits=3, meaning=DICE_MEANING)
    formats = {
        "method": Format("Method"),
        "fixed_at": Format("fixed at", digits=2),
        "fixed": dice_format,
        "best_at": Format("best at", digits=2),
        "best": dice_format,
        "cross_validated_at": Format("cross-validated at [range]", digits=2, interval=ends),
        "cross_validated": dice_format,
        "per_image": Format("per image", digits=3, meaning=PER_IMAGE),
    }
    return Table(
        title="Dice ↑ by how the threshold is chosen",
        frame=pd.DataFrame(rows, columns=[*formats, *ends]),  # also where there are none
        formats=formats,
        notes=(
            "Fixed: the method's own threshold, set in advance (by default the reference's).",
            "Best: the highest mean Dice on these very samples, which flatters.",
            "Cross-validated: chosen on one half of the samples, scored on the other; 100 splits.",
            "Per image: every image at its own best threshold, which no method can know.",
        ),
    )


def by_threshold(segmentation: pd.DataFrame, method: str, score: str) -> pd.DataFrame:
    """A method's scores [samples, thresholds], of the samples that have them all."""
    rows = segmentation[segmentation["method"] == method]
    return rows.pivot(index="sample", columns="threshold", values=score).dropna().sort_index()


def _chosen(
    segmentation: pd.DataFrame, thresholds: Mapping[str, float] | Literal["best"]
) -> tuple[pd.DataFrame, str]:
    """Rows at the thresholds, and the sentence that says which they are and why."""
    best = thresholds == "best"
    rows = at_thresholds(
        segmentation, best_thresholds(segmentation) if isinstance(thresholds, str) else thresholds
    )
    used = rows[~rows["method"].isin(BASELINES)].groupby("method", sort=False)["threshold"].first()
    why = "best mean Dice of each method on these very samples" if best else "fixed in advance"
    return rows, f"Thresholds ({why}): {', '.join(f'{m} {value:g}' for m, value in used.items())}."
