"""From soft maps to masks: rescaling, upsampling and cutting at many thresholds at once.

Knows tensors only. Formulas and reference quirks: methods.md, section 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.diffusion.prompt_diff import Compat


@dataclass(frozen=True)
class Binarizer:
    """How thresholds cut a soft map: inside is what reaches a threshold's level.

    name: of the formula, in artifact keys; rescaled: whether the map is first brought to [0, 1).
    levels: (upsampled map [H, W], thresholds, compat) -> float32 [T], for every threshold the
    smallest value that is inside. thresholded: False for what finds one level by itself, whatever
    the thresholds are. nearest: every pixel takes the value of its cell; bilinear where False.
    """

    name: str
    rescaled: bool
    levels: Callable[[Tensor, Sequence[float], Compat], Tensor]
    thresholded: bool = True
    nearest: bool = False

    def cut(
        self, soft_map: Tensor, thresholds: Sequence[float], size: tuple[int, int], compat: Compat
    ) -> tuple[Tensor, Tensor]:
        """The map [g, g] at ``size`` (height, width) and its levels [T]: all masks, unmade."""
        m = rescale(soft_map) if self.rescaled else soft_map
        m = F.interpolate(m[None, None], size)[0, 0] if self.nearest else upsample(m, size, compat)
        return m, self.levels(m, thresholds, compat)

    def masks(
        self, soft_map: Tensor, thresholds: Sequence[float], size: tuple[int, int], compat: Compat
    ) -> Tensor:
        """bool [T, height, width]."""
        m, levels = self.cut(soft_map, thresholds, size, compat)
        return m >= levels[:, None, None]

    def latent_masks(
        self,
        soft_map: Tensor,
        thresholds: Sequence[float],
        size: tuple[int, int],
        compat: Compat,
        latent_size: int,
    ) -> Tensor:
        """``masks``, brought to the latents' size by nearest-exact: bool [T, h, w]."""
        m, levels = self.cut(soft_map, thresholds, size, compat)
        # Taking pixels and comparing them commute, so that no mask is made at full size.
        return nearest_exact(m[None], latent_size) >= levels[:, None, None]


def rescale(soft_map: Tensor) -> Tensor:
    """Min-max to [0, 1); a constant map becomes 0."""
    low, high = soft_map.min(), soft_map.max()
    return (soft_map - low) / (high - low + 1e-7)


def upsample(soft_map: Tensor, size: tuple[int, int], compat: Compat) -> Tensor:
    """Bilinear, [g, g] -> (height, width); ``reference`` gives (width, height), as it was."""
    height, width = size
    shape = (width, height) if compat == "reference" else (height, width)
    return F.interpolate(soft_map[None, None], shape, mode="bilinear", align_corners=False)[0, 0]


def nearest_exact(pictures: Tensor, size: int) -> Tensor:
    """[N, height, width] -> [N, size, size] of the same type: every cell takes one pixel."""
    cells = F.interpolate(pictures[None].float(), (size, size), mode="nearest-exact")[0]
    return cells.to(pictures.dtype)


def _above(m: Tensor, thresholds: Sequence[float], compat: Compat) -> Tensor:
    """m > threshold."""
    return _next(torch.tensor(thresholds, dtype=torch.float32))


def _above_ratio_of_mean(m: Tensor, ratios: Sequence[float], compat: Compat) -> Tensor:
    """DiffEdit's cut at a multiple of the mean, with c = ratio * mean(m).

    exact: m > c / 2. It is defined for every c, so that a map of zeros (identical prompts) gives
    the empty mask. reference: not clamp(m, 0, c) / c <= 0.5, by which c < 0 (c / c) and c = 0
    (0 / 0) give all ones. For c > 0 both are the same: c / 2 is exact in float32 (outside of
    denormals) and the float above it is more than 2^-25 of c further, where quotients round up.
    """
    c = m.mean() * torch.tensor(ratios, dtype=torch.float32)
    levels = _next(c / 2)
    return levels if compat == "exact" else levels.where(c > 0, -torch.inf)


def _above_quantile(m: Tensor, quantiles: Sequence[float], compat: Compat) -> Tensor:
    """m >= its q-quantile (linear): the top 1 - q of the places, ties together."""
    q = torch.tensor(quantiles, dtype=torch.float32).clamp(0, 1)
    return _above_least(m, m.flatten().quantile(q))


def _above_ratio_of_max(m: Tensor, ratios: Sequence[float], compat: Compat) -> Tensor:
    """m > ratio * max(m)."""
    return _above_least(m, _next(m.max() * torch.tensor(ratios, dtype=torch.float32)))


def _reaches(m: Tensor, thresholds: Sequence[float], compat: Compat) -> Tensor:
    """m >= threshold, of ranks, which float32 has to a millionth; nothing of a constant map."""
    levels = torch.tensor(thresholds, dtype=torch.float32) - 1e-6
    return levels if m.min() < m.max() else torch.full_like(levels, torch.inf)


def _otsu(m: Tensor, thresholds: Sequence[float], compat: Compat) -> Tensor:
    """m > the centre of the first of 256 equal bins that parts the values with the largest variance
    between the two classes (Otsu 1979).
    """
    low, high = m.min().item(), m.max().item()
    counts, edges = np.histogram(m.numpy(), bins=256, range=(low, high) if low < high else (0, 1))
    centres = (edges[:-1] + edges[1:]) / 2
    below, sums = counts.cumsum()[:-1], (counts * centres).cumsum()[:-1]
    above, total = counts.sum() - below, (counts * centres).sum()
    means = sums / below.clip(1) - (total - sums) / above.clip(1)
    centre = centres[np.argmax(below * above * means**2)]
    level = _next(torch.tensor([centre], dtype=torch.float32))
    return _above_least(m, level.expand(len(thresholds)))


def _above_least(m: Tensor, levels: Tensor) -> Tensor:
    """The levels, and never the smallest value: a constant map has nothing inside."""
    return levels.maximum(_next(m.min()))


def _next(values: Tensor) -> Tensor:
    return values.nextafter(torch.tensor(torch.inf))


ABOVE = Binarizer("above", rescaled=False, levels=_above)
RESCALED_ABOVE = Binarizer("rescaled_above", rescaled=True, levels=_above)
ABOVE_RATIO_OF_MEAN = Binarizer("above_ratio_of_mean", rescaled=False, levels=_above_ratio_of_mean)
ABOVE_QUANTILE = Binarizer("above_quantile", rescaled=False, levels=_above_quantile)
ABOVE_RATIO_OF_MAX = Binarizer("above_ratio_of_max", rescaled=False, levels=_above_ratio_of_max)
REACHES = Binarizer("reaches", rescaled=False, levels=_reaches, nearest=True)
OTSU = Binarizer("otsu", rescaled=False, levels=_otsu, thresholded=False)

BINARIZERS: dict[str, Binarizer] = {
    binarizer.name: binarizer
    for binarizer in (
        ABOVE,
        RESCALED_ABOVE,
        ABOVE_RATIO_OF_MEAN,
        ABOVE_QUANTILE,
        ABOVE_RATIO_OF_MAX,
        REACHES,
        OTSU,
    )
}
"""By the names that settings give them; one's own may be added."""
