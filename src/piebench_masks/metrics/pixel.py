"""PSNR, MSE and SSIM of an edit against its source, whole image and parts (METHODS.md, section 5).

Images are in [0, 1] and multiplied by the part; averages run over ALL pixels, as in PIE-Bench's
evaluator. Knows no weights.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.batching import map_rows
from piebench_masks.metrics.case import HEADLINE, PARTS, EditCase
from piebench_masks.metrics.column import Column

# Wang et al. and torchmetrics: a window that ends at 3.5 sigma, constants for a data range of 1.
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


class Pixel:
    """Pixel metrics; SSIM is computed ``rows`` images at a time on ``device``."""

    def __init__(self, *, device: str | torch.device = "cpu", rows: int = 8) -> None:
        self.device, self.rows = torch.device(device), rows
        self.columns = {}
        for suffix, where in PARTS.items():
            shown = suffix == HEADLINE
            self.columns[f"psnr{suffix}"] = Column(f"PSNR{where}", "up", headline=shown)
            self.columns[f"mse{suffix}"] = Column(f"MSE{where}", "down", 1e4, headline=shown)
            self.columns[f"ssim{suffix}"] = Column(f"SSIM{where}", "up", 1e2, headline=shown)

    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Score ``edited`` uint8 [V, H, W, 3]; PSNR of an identical part is infinite."""
        values = {name: np.full(len(edited), np.nan) for name in self.columns}
        errors = squared_error(edited, case.source)
        for suffix, part in case.parts().items():
            mse = (errors * part).sum(axis=(-2, -1)) / (255.0**2 * case.source.size)
            values[f"mse{suffix}"] = mse
            with np.errstate(divide="ignore"):
                values[f"psnr{suffix}"] = -10 * np.log10(mse)
            values[f"ssim{suffix}"] = self._ssim(case.source, edited, part)
        return values

    @torch.inference_mode()
    def _ssim(self, source: np.ndarray, edited: np.ndarray, part: np.ndarray) -> np.ndarray:
        mask = torch.from_numpy(part).to(self.device)

        def planes(images: Tensor) -> Tensor:
            """uint8 [B, H, W, 3] -> the part in [0, 1], [B, 3, H, W]."""
            return images.to(self.device).movedim(-1, -3) / 255 * mask

        reference = planes(torch.from_numpy(source)[None])
        result = map_rows(
            lambda images: ssim(planes(images), reference),
            torch.from_numpy(edited),
            rows=self.rows,
        )
        return result.double().cpu().numpy()


def squared_error(images: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Exact squared difference of uint8 [..., H, W, 3], summed over colours: int64 [..., H, W]."""
    difference = images.astype(np.int32) - other
    return (difference * difference).sum(axis=-1, dtype=np.int64)


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
