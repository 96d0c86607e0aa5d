"""From soft maps to masks: rescaling, upsampling and cutting at many thresholds at once.

Knows tensors only. Formulas and reference quirks: METHODS.md, section 2.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.diffusion.prompt_diff import Compat


def rescale(soft_map: Tensor) -> Tensor:
    """Min-max to [0, 1); a constant map becomes 0."""
    low, high = soft_map.min(), soft_map.max()
    return (soft_map - low) / (high - low + 1e-7)


def upsample(soft_map: Tensor, size: tuple[int, int], compat: Compat) -> Tensor:
    """Bilinear, [g, g] -> (height, width); ``reference`` gives (width, height), as it was."""
    height, width = size
    shape = (width, height) if compat == "reference" else (height, width)
    return F.interpolate(soft_map[None, None], shape, mode="bilinear", align_corners=False)[0, 0]


def above(
    soft_map: Tensor, thresholds: Sequence[float], size: tuple[int, int], compat: Compat
) -> Tensor:
    """m > threshold, for maps that are shares already: bool [T, height, width]."""
    return upsample(soft_map, size, compat) > _column(thresholds)


def rescaled_above(
    soft_map: Tensor, thresholds: Sequence[float], size: tuple[int, int], compat: Compat
) -> Tensor:
    """rescale(m) > threshold: bool [T, height, width]."""
    return above(rescale(soft_map), thresholds, size, compat)


def above_ratio_of_mean(
    soft_map: Tensor, ratios: Sequence[float], size: tuple[int, int], compat: Compat
) -> Tensor:
    """DiffEdit's cut at a multiple of the mean, with c = ratio * mean(m): bool [T, height, width].

    exact: m > c / 2. For c > 0 that is the reference's clamp(m, 0, c) / c > 0.5; it is defined for
    every other c as well, so that a map of zeros (identical prompts) gives the empty mask.
    reference: its formula, by which c < 0 (c / c) and c = 0 (0 / 0) give all ones.
    """
    m = upsample(soft_map, size, compat)
    c = m.mean() * _column(ratios)
    if compat == "exact":
        return m > c / 2
    return ~(m.clamp(torch.zeros_like(c), c) / c <= 0.5)


def to_latent_mask(masks: Tensor, size: int) -> Tensor:
    """bool [T, height, width] -> bool [T, size, size], nearest-exact."""
    return F.interpolate(masks[None].float(), (size, size), mode="nearest-exact")[0].bool()


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
