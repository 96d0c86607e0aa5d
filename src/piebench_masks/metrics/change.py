"""Where an edit changed the picture: inside the annotated mask or beside it. Knows no weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import Column


@dataclass(frozen=True)
class Change:
    """Absolute differences from the source, summed over colours. What changes nothing has no leak,
    so that doing nothing cannot win.
    """

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("image", "mask")
    columns: ClassVar[Mapping[str, Column]] = {
        "leak": Column(
            "Leak",
            "down",
            100,
            digits=1,
            meaning="Share of all change that lies outside the annotated mask.",
            bounds=(0, 1),
        ),
        "change_inside": Column(
            "Change inside",
            "up",
            100,
            headline=False,
            meaning="Mean absolute difference from the source inside the annotated mask, in % of "
            "the largest.",
            part="inside",
        ),
        "change_outside": Column(
            "Change outside",
            "down",
            100,
            headline=False,
            meaning="Mean absolute difference from the source outside the annotated mask, in % of "
            "the largest.",
            part="outside",
        ),
    }

    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Score ``edited`` uint8 [V, H, W, 3]; NaN without a mask or where nothing is to divide."""
        missing = np.full(len(edited), np.nan)
        if case.mask is None:
            return dict.fromkeys(self.columns, missing)
        change = np.abs(edited.astype(np.int64) - case.source).sum(axis=-1)
        inside, outside = change[:, case.mask].sum(axis=1), change[:, ~case.mask].sum(axis=1)
        pixels = int(case.mask.sum()), int((~case.mask).sum())

        def share(sums: np.ndarray, of: np.ndarray | int) -> np.ndarray:
            return np.divide(sums, of, out=missing.copy(), where=np.asarray(of) > 0)

        return {
            "leak": share(outside, inside + outside),
            "change_inside": share(inside, 255 * 3 * pixels[0]),
            "change_outside": share(outside, 255 * 3 * pixels[1]),
        }
