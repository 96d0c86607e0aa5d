"""Scores the way the published reference computes them: everything again for every score.

The comparison's other side (methods.md, sections 4 and 5) on torch, open_clip and the lpips
package; it must not use the package's own metrics, nor share anything between two scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from reference_flow import Entry, binarise
from torch import Tensor

TINY = 1e-7
Image8 = NDArray[np.uint8]


def decode_annotation(runs: Sequence[int], size: int, border: int) -> Tensor:
    """The annotated mask, float32 [size, size]: pixel after pixel, as PIE-Bench's decoder does."""
    flat = np.zeros(size * size, dtype=np.float32)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        for pixel in range(start, min(start + length, flat.size)):
            flat[pixel] = 1.0
    mask = torch.from_numpy(flat).reshape(size, size)
    framed = torch.ones_like(mask)
    inside = slice(border, size - border)
    framed[inside, inside] = mask[inside, inside]
    return framed


def true_positives(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction * target).sum()


def false_positives(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction * (1 - target)).sum()


def false_negatives(prediction: Tensor, target: Tensor) -> Tensor:
    return ((1 - prediction) * target).sum()


def dice(prediction: Tensor, target: Tensor) -> float:
    tp = true_positives(prediction, target)
    fp, fn = false_positives(prediction, target), false_negatives(prediction, target)
    return float((2 * tp + TINY) / (2 * tp + fn + fp + TINY))


def precision(prediction: Tensor, target: Tensor) -> float:
    tp, fp = true_positives(prediction, target), false_positives(prediction, target)
    return float((tp + TINY) / (tp + fp + TINY))


def recall(prediction: Tensor, target: Tensor) -> float:
    tp, fn = true_positives(prediction, target), false_negatives(prediction, target)
    return float((tp + TINY) / (tp + fn + TINY))


def iou(prediction: Tensor, target: Tensor) -> float:
    tp = true_positives(prediction, target)
    fp, fn = false_positives(prediction, target), false_negatives(prediction, target)
    return float((tp + TINY) / (tp + fn + fp + TINY))


SEGMENTATION: dict[str, Callable[[Tensor, Tensor], float]] = {
    "dice": dice,
    "precision": precision,
    "recall": recall,
    "iou": iou,
}


def segmentation_scores(
    entry: Entry, stored_map: Path, method: str, threshold: float, *, size: int, border: int
) -> dict[str, float]:
    """One mask against the annotation; map and annotation are read again for it."""
    target = decode_annotation(entry.runs, size, border)
    prediction = binarise(torch.from_numpy(np.load(stored_map)), method, threshold).float()
    scores = {name: score(prediction, target) for name, score in SEGMENTATION.items()}
    inverted = {
        f"{name}_inv": score(1 - prediction, 1 - target) for name, score in SEGMENTATION.items()
    }
    return scores | inverted


@dataclass(frozen=True)
class Scorers:
    """The networks of the editing scores; clip: an open_clip model with its two preparations."""

    clip: Any
    preprocess: Callable[[Image.Image], Tensor]
    tokenizer: Callable[[list[str]], Tensor]
    lpips: Any
    device: str = "cpu"

    @torch.inference_mode()
    def __call__(
        self, entry: Entry, edit: Path, *, size: int, border: int
    ) -> dict[str, float | None]:
        """One edit; pictures, annotation, texts and features are all taken again for it."""
        mask = decode_annotation(entry.runs, size, border)
        inside = mask.numpy().astype(np.uint8)[..., None]
        source, edited = load(entry.image, size), load(edit, size)
        scores: dict[str, float | None] = {
            "clip_whole": self._clip(edited, entry.target_prompt),
            "clip_edited": self._clip(edited * inside, entry.target_prompt),
            "clip_source": self._clip(source, entry.source_prompt),
        }
        if mask.all():
            return scores | dict.fromkeys(("psnr", "mse", "ssim", "lpips"))
        one, two = (self._background(image, mask) for image in (source, edited))
        return scores | {
            "psnr": psnr(one, two),
            "mse": mse(one, two),
            "ssim": ssim(one, two),
            "lpips": float(self.lpips(2 * one - 1, 2 * two - 1)),
        }

    def _clip(self, image: Image8, prompt: str) -> float:
        pixels = self.preprocess(Image.fromarray(image))[None].to(self.device)
        seen = F.normalize(self.clip.encode_image(pixels), dim=-1)
        said = F.normalize(self.clip.encode_text(self.tokenizer([prompt]).to(self.device)), dim=-1)
        return 100 * max(0.0, float((seen * said).sum()))

    def _background(self, image: Image8, mask: Tensor) -> Tensor:
        """What should stay as it is, in [0, 1]: [1, 3, H, W]."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        return (pixels * (1 - mask)).to(self.device)


def load(path: Path, size: int) -> Image8:
    """uint8 [size, size, 3]."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    return np.array(rgb if rgb.size == (size, size) else rgb.resize((size, size)))


def mse(one: Tensor, two: Tensor) -> float:
    return float(((one - two) ** 2).mean())


def psnr(one: Tensor, two: Tensor) -> float:
    return float(-10 * torch.log10(((one - two) ** 2).mean()))


def ssim(one: Tensor, two: Tensor) -> float:
    """Gaussian window of 11 pixels and sigma 1.5, data range 1, mean over all pixels."""
    offsets = torch.arange(-5.0, 6.0, device=one.device)
    profile = torch.exp(-((offsets / 1.5) ** 2) / 2)
    window = torch.outer(profile, profile) / profile.sum() ** 2
    stacked = torch.cat([one, two, one * one, two * two, one * two])
    blurred = F.conv2d(
        F.pad(stacked, [5] * 4, mode="reflect"), window.expand(3, 1, -1, -1), groups=3
    )
    mean1, mean2, square1, square2, product = blurred.split(1)
    variances = (square1 - mean1**2).clamp(min=0) + (square2 - mean2**2).clamp(min=0)
    similarity = (2 * mean1 * mean2 + 1e-4) * (2 * (product - mean1 * mean2) + 9e-4)
    return float((similarity / ((mean1**2 + mean2**2 + 1e-4) * (variances + 9e-4))).mean())
