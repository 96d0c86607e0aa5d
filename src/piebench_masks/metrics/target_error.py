"""How far an edit is from the true edited image, where a benchmark knows it (methods.md, 5).

PIE-Bench has no true targets; the shapes miniature renders them. Knows no weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import Column
from piebench_masks.metrics.pixel import squared_error


@dataclass(frozen=True)
class TargetError:
    """Squared error to the true target inside the mask, relative to doing nothing (which is 1)."""

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("image", "target_image", "mask")
    columns: ClassVar[Mapping[str, Column]] = {
        "target_error": Column(
            "Error to target",
            "down",
            digits=3,
            statistic="median",
            role="target",
            meaning="Squared error to the true edit inside the annotated mask; 1 is doing nothing.",
            part="inside",
        )
    }

    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Score ``edited`` uint8 [V, H, W, 3]; NaN without a target or where nothing changes."""
        error = np.full(len(edited), np.nan)
        if case.target is not None and case.mask is not None:
            target, mask = torch.from_numpy(case.target), torch.from_numpy(case.mask)
            doing_nothing = squared_error(torch.from_numpy(case.source), target)[mask].sum().item()
            if doing_nothing > 0:
                wrong = squared_error(torch.from_numpy(edited), target)[:, mask].sum(dim=1)
                error = wrong.numpy() / doing_nothing
        return {"target_error": error}
