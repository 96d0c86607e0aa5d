"""What edits and columns are called wherever they are shown: tables, figures, gallery, trackers.

Must not import torch, so that a run can be looked at in a second.
"""

from math import log10
from typing import TYPE_CHECKING

import pandas as pd

from piebench_masks.report.methods import BOUNDS, editors_of

if TYPE_CHECKING:
    from piebench_masks.metrics.column import Column

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def header(column: "Column") -> str:
    """A metric's label with its scale and the direction that is better: ``LPIPS ×10³ ↓``.

    Where it is no mean over samples, it says so: ``Error to target (median) ↓``.
    """
    statistic = "" if column.statistic == "mean" else f" ({column.statistic})"
    power = f" ×10{str(round(log10(column.scale))).translate(_SUPERSCRIPTS)}"
    arrow = "↑" if column.direction == "up" else "↓"
    return f"{column.label}{statistic}{power if column.scale != 1 else ''} {arrow}"


def edit_names(rows: pd.DataFrame, *, several: bool | None = None) -> pd.Series:
    """What the edits in rows are called: by their mask method, after the editor if there are
    ``several``; None: if the rows have more than one. A bound has no mask.
    """
    if several is None:
        several = len(editors_of(rows)) > 1
    names = rows["editor"] + ", " + rows["method"]
    return names.where(several & ~rows["method"].isin(BOUNDS), rows["method"])
