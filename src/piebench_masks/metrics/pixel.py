"""PSNR, MSE and SSIM of an edit against its source, whole image and parts (methods.md, section 5).

Images are in [0, 1] and multiplied by the part; averages run over ALL pixels, as in PIE-Bench's
evaluator. Knows no weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.batching import Blocks
from piebench_masks.identity import NO_OUTPUT
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import SUFFIXES, Column

# Wang et al. and torchmetrics: a window that ends at 3.5 sigma, constants for a data range of 1.
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
SCORES = {
    "psnr": Column(
        "PSNR",
        "up",
        meaning="Likeness to the source in dB (peak signal-to-noise ratio)",
        infinite="leave that part of the picture exactly as it was",
    ),
    "mse": Column("MSE", "down", 1e4, meaning="Mean squared difference from the source"),
    "ssim": Column("SSIM", "up", 1e2, meaning="Structural likeness to the source"),
}


@dataclass(frozen=True, kw_only=True)
class Pixel:
    """Pixel metrics, computed ``rows`` images at a time on ``device``."""

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("image", "mask")
    columns: ClassVar[Mapping[str, Column]] = {
        f"{name}{suffix}": column.on(part)
        for part, suffix in SUFFIXES.items()
        for name, column in SCORES.items()
    }
    device: str | torch.device = field(default="cpu", metadata=NO_OUTPUT)
    rows: int = field(default=8, metadata=NO_OUTPUT)

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.rows)

    @torch.inference_mode()
    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Score ``edited`` uint8 [V, H, W, 3]; PSNR of an identical part is infinite."""
        source, images, masks, suffixes = case.on(torch.device(self.device), edited)
        references = _planes(source[None], masks)[:, None]

        def score(block: Tensor) -> Tensor:
            """uint8 [rows, H, W, 3] -> MSE and SSIM of every part, float64 [rows, 2, parts]."""
            errors = squared_error(block, source)
            sums = [(errors * mask).sum(dim=(1, 2)).double() for mask in masks]
            mse = [total / (255.0**2 * source.numel()) for total in sums]
            similarity = [
                ssim(_planes(block, mask), reference)
                for mask, reference in zip(masks, references, strict=True)
            ]
            return torch.stack([*mse, *similarity], dim=1).unflatten(1, (2, len(masks)))

        scores = self._blocks.map(score, images).cpu().numpy()
        values = {name: np.full(len(edited), np.nan) for name in self.columns}
        for number, suffix in enumerate(suffixes):
            mse, similarity = scores[:, 0, number], scores[:, 1, number]
            with np.errstate(divide="ignore"):
                psnr = -10 * np.log10(mse)
            values |= {f"mse{suffix}": mse, f"psnr{suffix}": psnr, f"ssim{suffix}": similarity}
        return values


def _planes(images: Tensor, mask: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] under bool [..., H, W] -> [B, 3, H, W] in [0, 1]."""
    return images.movedim(-1, -3) / 255 * mask[..., None, :, :]


def squared_error(images: Tensor, other: Tensor) -> Tensor:
    """Exact squared difference of uint8 [..., H, W, 3], summed over colours: int64 [..., H, W]."""
    difference = images.int() - other.int()
    return (difference * difference).sum(dim=-1)


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Mean structural similarity [B] of float [B, 3, H, W] in [0, 1] (Wang et al., TIP 2004).

    Gaussian window of sigma 1.5, 11 pixels wide; the image is reflected at its border, so that the
    mean runs over all pixels, as in torchmetrics. H and W are at least 6.
    """
    mean, mean_reference = _blur(images), _blur(reference)
    variance = _blur(images * images) - mean * mean
    variance_reference = _blur(reference * reference) - mean_reference * mean_reference
    covariance = _blur(images * reference) - mean * mean_reference
    luminance = (2 * mean * mean_reference + SSIM_C1) / (
        mean * mean + mean_reference * mean_reference + SSIM_C1
    )
    # Rounding can make the variance of a flat window negative.
    spread = variance.clamp(min=0) + variance_reference.clamp(min=0) + SSIM_C2
    return (luminance * (2 * covariance + SSIM_C2) / spread).mean(dim=(1, 2, 3))


def _blur(images: Tensor) -> Tensor:
    """Gaussian mean around every pixel.

    The window is not taken apart into rows and columns: in flat bright regions float32 rounding
    moves SSIM by 2e-4, and published figures hold the rounding of the whole window.
    """
    channels = images.shape[1]
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, device=images.device, dtype=images.dtype)
    profile = torch.exp(-((offsets / SSIM_SIGMA) ** 2) / 2)
    profile = profile / profile.sum()
    window = torch.outer(profile, profile).expand(channels, 1, -1, -1)
    padded = F.pad(images, [SSIM_RADIUS] * 4, mode="reflect")
    return F.conv2d(padded, window, groups=channels)
