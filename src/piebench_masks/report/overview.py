"""All mask methods in one table: what they are told, how good their masks are, what they cost.

Gets frames of per-sample rows, returns a finished table; must not know stores, stages or models.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from piebench_masks.metrics.segmentation import COLUMNS
from piebench_masks.report.mask_tables import DICE_MEANING, by_threshold
from piebench_masks.report.methods import (
    BASELINES,
    TRIVIAL,
    at_thresholds,
    best_thresholds,
    order_methods,
)
from piebench_masks.report.names import header
from piebench_masks.report.ranking import best_cells
from piebench_masks.report.statistics import bootstrap, cross_validated, set_curves
from piebench_masks.report.table import Format, Table


def overview_table(
    segmentation: pd.DataFrame, knows: Mapping[str, str], costs: pd.DataFrame
) -> Table:
    """One row per mask method, at its best threshold.

    knows: the methods' leak levels; costs: rows with ``method``, ``unet_rows``, ``forwards`` and
    ``seconds`` of each map. The interval of Dice is the 95 % percentile bootstrap over samples.
    """
    rows = at_thresholds(segmentation, best_thresholds(segmentation))
    methods = order_methods(rows["method"])
    area, annotated = rows["area"], rows["annotated"]
    # What as many pixels would score, drawn blindly: they hit what is annotated in proportion.
    chance = 2 * area * annotated / (area + annotated).where(lambda sum: sum > 0)
    above = (rows["dice"] - chance.fillna(0)).round(6)  # Dice has seven digits
    by_method = rows.assign(above_chance=above).groupby("method")
    frame = by_method[["dice", "above_chance", "boundary_iou"]].mean()
    frame["threshold"] = by_method["threshold"].first()
    dice = rows.pivot(index="sample", columns="method", values="dice").sort_index()
    for end, values in zip(("low", "high"), bootstrap(dice.to_numpy(dtype=float)), strict=True):
        frame[f"dice_{end}"] = pd.Series(values, dice.columns)
    frame["area_ratio"] = by_method["area"].mean() / by_method["annotated"].mean()
    over_sweep = {method: _over_sweep(segmentation, method) for method in methods}
    frame = frame.join(pd.DataFrame.from_dict(over_sweep, orient="index")).loc[methods]
    frame = frame.reindex(columns=[*_FORMATS, "dice_low", "dice_high"])
    mean = costs.groupby("method")[["unet_rows", "forwards", "seconds"]].mean()
    frame[mean.columns] = mean.reindex(methods)
    frame = frame.drop(columns="method").reset_index()
    frame["knows"] = frame["method"].map(knows)
    baselines = frame["method"].isin(BASELINES)
    ranked = dict.fromkeys(
        ["dice", "cross_validated", "above_chance", "set_ap", "set_auroc", "boundary_iou"], "up"
    )
    return Table(
        title="Mask methods at a glance",
        frame=frame,
        formats=_FORMATS,
        notes=(
            "At each method's threshold of the best mean Dice on these very samples, which "
            "flatters. CV, cross-validated: chosen on one half, scored on the other.",
            "AP and AUROC: of all pixels of the set, at the thresholds of the sweep.",
            "Cost of a map alone: U-Net rows, passes of networks of its own (encoders of texts and "
            "pictures not counted), seconds as measured when the map was made.",
            TRIVIAL,
        ),
        best=best_cells(frame, _FORMATS, ranked),
        sections=frozenset(frame.index[baselines][:1]),
        muted=frozenset(frame.index[baselines]),
    )


def _over_sweep(segmentation: pd.DataFrame, method: str) -> dict[str, float]:
    """What a method's thresholds tell together; nothing of a single one."""
    dice = by_threshold(segmentation, method, "dice").to_numpy(float)
    if dice.shape[1] < 2:
        return {}
    recall, area, annotated = (
        by_threshold(segmentation, method, name).to_numpy(float)
        for name in ("recall", "area", "annotated")
    )
    precision, auroc = set_curves(recall * annotated, area, annotated[:, 0])
    held_out = cross_validated(dice)[1].mean() if len(dice) > 1 else np.nan
    return {"set_ap": precision, "set_auroc": auroc, "cross_validated": float(held_out)}


_FORMATS = {
    "method": Format("Method"),
    "knows": Format("Knows", meaning="how much of the answer the method is told"),
    "dice": Format(
        "Dice ↑ [95 %]", digits=3, interval=("dice_low", "dice_high"), meaning=DICE_MEANING
    ),
    "threshold": Format("at", digits=2, meaning="the threshold of the best mean Dice"),
    "cross_validated": Format(
        "CV ↑",
        digits=3,
        meaning="Dice at a threshold chosen on other samples",
    ),
    "above_chance": Format(
        "above chance ↑",
        digits=3,
        meaning="Dice less the Dice of as many pixels drawn blindly",
    ),
    "set_ap": Format("AP ↑", digits=3, meaning="average precision of all pixels of the set"),
    "set_auroc": Format(
        "AUROC ↑", digits=3, meaning="area under the ROC curve of all pixels of the set"
    ),
    "boundary_iou": Format(
        header(COLUMNS["boundary_iou"]), digits=3, meaning=COLUMNS["boundary_iou"].meaning
    ),
    "area_ratio": Format(
        "area ratio", digits=2, meaning="area of the masks, divided by that of the annotated ones"
    ),
    "unet_rows": Format("U-Net rows", digits=1, meaning="rows of the U-Net that a map takes"),
    "forwards": Format("forwards", digits=0, meaning="passes of networks of the method's own"),
    "seconds": Format("seconds", digits=3, meaning="for a map alone, as measured"),
}
