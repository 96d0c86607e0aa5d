"""What an edit is scored against, and the parts of the image that are scored. Knows no metric."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from piebench_masks.batching import Blocks
from piebench_masks.metrics.column import SUFFIXES, Part

READS = ("image", "target_image", "prompts", "mask")
"""What a metric may look at, by the names of a sample's fields."""


class CaseTensors(NamedTuple):
    """source uint8 [H, W, 3], edited uint8 [V, H, W, 3], masks bool [P, H, W]: one for each of
    ``suffixes``, the parts that hold a pixel.
    """

    source: Tensor
    edited: Tensor
    masks: Tensor
    suffixes: tuple[str, ...]


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

    def as_read(self, reads: Collection[str]) -> "EditCase":
        """The case without what is not in ``reads``, of ``READS``."""
        case = self
        if "target_image" not in reads:
            case = replace(case, target=None)
        if "prompts" not in reads:
            case = replace(case, source_prompt="", target_prompt="")
        if "mask" not in reads:
            case = replace(case, mask=None)
        return case

    def on(self, device: torch.device, edited: np.ndarray) -> CaseTensors:
        """The source, its edits uint8 [V, H, W, 3] and the parts to score, on a device."""
        masks: dict[Part, np.ndarray] = {"whole": np.ones(self.source.shape[:2], dtype=bool)}
        if self.mask is not None:
            masks |= {"outside": ~self.mask, "inside": self.mask}
        masks_by_suffix = {SUFFIXES[part]: mask for part, mask in masks.items() if mask.any()}
        return CaseTensors(
            source=torch.from_numpy(self.source).to(device),
            edited=torch.from_numpy(edited).to(device),
            masks=torch.from_numpy(np.stack(list(masks_by_suffix.values()))).to(device),
            suffixes=tuple(masks_by_suffix),
        )


def score_parts(
    name: str, score: Callable[[Tensor, Tensor], Tensor], case: CaseTensors, blocks: Blocks
) -> dict[str, np.ndarray]:
    """Every edit on every part in one batched pass: float64 [V] for ``name`` + suffix.

    score: indices of edits [rows] and of parts [rows] -> scores [rows]. Parts without a pixel are
    NaN.
    """
    edits, parts = len(case.edited), len(case.masks)
    part, edit = torch.cartesian_prod(torch.arange(parts), torch.arange(edits)).unbind(1)
    scores = blocks.map(score, edit, part).double().cpu().numpy().reshape(parts, edits)
    values = dict(zip(case.suffixes, scores, strict=True))
    missing = np.full(edits, np.nan)
    return {f"{name}{suffix}": values.get(suffix, missing) for suffix in SUFFIXES.values()}
