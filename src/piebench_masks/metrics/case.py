"""What an edit is scored against, and the parts of the image that are scored. Knows no metric."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from piebench_masks.batching import Blocks

PARTS: dict[str, str] = {"": "", "_unedit_part": " outside", "_edit_part": " inside"}
"""Suffix of a column's name -> suffix of its label: whole image, background, edited part."""
HEADLINE = "_unedit_part"
"""The part that PIE-Bench's tables show: what an edit should have left alone."""


@dataclass(frozen=True)
class EditCase:
    """One sample's images and prompts.

    source: uint8 [H, W, 3]; target: the true edited image of that shape, None where unknown;
    mask: bool [H, W], True in the part to edit, None where the benchmark has none.
    """

    source: np.ndarray
    target: np.ndarray | None
    mask: np.ndarray | None
    source_prompt: str
    target_prompt: str

    def parts(self) -> dict[str, np.ndarray]:
        """Suffix -> bool [H, W] of the parts that hold a pixel; the other parts have no score."""
        parts = {"": np.ones(self.source.shape[:2], dtype=bool)}
        if self.mask is not None:
            parts |= {"_unedit_part": ~self.mask, "_edit_part": self.mask}
        return {suffix: part for suffix, part in parts.items() if part.any()}


def score_parts(
    name: str,
    score: Callable[[Tensor, Tensor], Tensor],
    parts: Sequence[str],
    variants: int,
    blocks: Blocks,
) -> dict[str, np.ndarray]:
    """Every variant on every part in one batched pass: float64 [variants] for ``name`` + suffix.

    score: indices of variants [rows] and of parts [rows] -> scores [rows]. Suffixes of ``PARTS``
    that are not in ``parts`` are NaN.
    """
    part, variant = torch.cartesian_prod(torch.arange(len(parts)), torch.arange(variants)).unbind(1)
    scores = blocks.map(score, variant, part).double().cpu().numpy()
    found = dict(zip(parts, scores.reshape(len(parts), variants), strict=True))
    return {f"{name}{suffix}": found.get(suffix, np.full(variants, np.nan)) for suffix in PARTS}
