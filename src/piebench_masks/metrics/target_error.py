"""How far an edit is from the true edited image, where a benchmark knows it (METHODS.md, 5).

PIE-Bench has no true targets; the shapes miniature renders them. Knows no weights.
"""

import numpy as np

from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import Column
from piebench_masks.metrics.pixel import squared_error


class TargetError:
    """Squared error to the true target inside the mask, relative to doing nothing (which is 1)."""

    def __init__(self) -> None:
        self.columns = {
            "target_error": Column("Error to target (median)", "down", digits=3, statistic="median")
        }

    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Score ``edited`` uint8 [V, H, W, 3]; NaN without a target or where nothing changes."""
        error = np.full(len(edited), np.nan)
        if case.target is not None and case.mask is not None:
            doing_nothing = squared_error(case.source, case.target)[case.mask].sum()
            if doing_nothing > 0:
                error = squared_error(edited, case.target)[:, case.mask].sum(-1) / doing_nothing
        return {"target_error": error}
