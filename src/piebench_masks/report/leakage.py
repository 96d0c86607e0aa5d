"""What a row of a table was allowed to know of the answer: its mask, its editor, its threshold.

Gets frames of per-sample rows and the levels of methods and editors; must not know stages.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from piebench_masks.report.methods import learned_methods
from piebench_masks.settings import LEVELS

FIXED, SEEN = "fixed", "these samples"
"""How a threshold was chosen: in advance, or by the best mean Dice on the samples of the table."""
WITHIN = "Best values are marked among rows that know the same."


def most(*levels: str) -> str:
    """The highest of these levels."""
    return max(levels, key=LEVELS.index)


def edit_levels(
    rows: pd.DataFrame, methods: Mapping[str, str], editors: Mapping[str, str]
) -> pd.Series:
    """The level of each row with ``editor``, ``method`` and ``mask_source``.

    methods, editors: the levels of masks and editors by name. An edit made elsewhere has what is
    stated of it, and the annotation where it is under the annotated mask.
    """
    masks = rows["method"].map({**methods, "none": "nothing"}).astype(object)
    masks = masks.where(masks.notna(), "nothing")
    masks = masks.where(rows["mask_source"] != "oracle", "annotation")
    told = rows["editor"].map(editors).astype(object)
    told = told.where(told.notna(), "unknown")
    levels = [most(*pair) for pair in zip(masks, told, strict=True)]
    return pd.Series(levels, rows.index, dtype=object)


def threshold_choices(rows: pd.DataFrame) -> dict[str, str]:
    """By method that has thresholds, how the one that tables show was chosen."""
    counts = rows.groupby("method")["threshold"].nunique()
    return {
        str(method): SEEN if counts[method] > 1 else FIXED
        for method in counts.index[counts > 0]
        if str(method) in learned_methods([str(method)])
    }


def level_marks(knows: Mapping[str, str]) -> dict[str, str]:
    """What stands behind a learned method's name in plots: its level, where levels differ."""
    learned = learned_methods(knows)
    if len({knows[name] for name in learned}) < 2:
        return {}
    return {name: f" ({knows[name]})" for name in learned}


def by_level(levels: Iterable[str]) -> list[np.ndarray]:
    """For each level that occurs, which rows have it."""
    array = np.array(list(levels), dtype=object)
    return [array == level for level in LEVELS if (array == level).any()]
