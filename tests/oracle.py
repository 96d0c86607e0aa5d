"""The benchmark's formulas (methods.md) written a second time, slowly and in float64.

One sample, one noise draw, one threshold, one pixel at a time; shares nothing with the package but
the networks that diffusers and transformers load from the same folder. Scores of masks alone are
rounded as the benchmark's, so that they can be compared bit by bit.
"""

from dataclasses import dataclass
from difflib import SequenceMatcher
from math import ceil, exp, floor, hypot, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Text = tuple[torch.Tensor, torch.Tensor]
"""Hidden states [1, L, D] and pooled embedding [1, P] of one prompt."""

TINY = 1e-7
STARTS = {0.25: 249, 0.5: 499, 0.75: 749}
EDIT_STEPS = {4: [799, 599, 399, 199], 3: [799, 499, 199]}
EDIT_NOISE = {4: [599, 399, 199], 3: [599, 299]}


@dataclass(frozen=True)
class Oracle:
    """One model in float64, asked one row at a time."""

    pipeline: Any

    @classmethod
    def load(cls, folder: Path) -> "Oracle":
        return cls(StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float64))

    def alpha(self, timestep: int) -> float:
        """The cumulative alpha of a scaled-linear schedule."""
        config = self.pipeline.scheduler.config
        low, high = sqrt(config.beta_start), sqrt(config.beta_end)
        product = 1.0
        for t in range(timestep + 1):
            product *= 1 - (low + (high - low) * t / 999) ** 2
        return product

    @torch.no_grad()
    def posterior(self, image: NDArray[np.uint8]) -> tuple[Array, Array]:
        pixels = torch.from_numpy(image / 127.5 - 1).movedim(-1, 0)[None]
        found = self.pipeline.vae.encode(pixels).latent_dist
        factor = self.pipeline.vae.config.scaling_factor
        return factor * found.mean[0].numpy(), factor * found.std[0].numpy()

    @torch.no_grad()
    def decode(self, latent: Array) -> NDArray[np.uint8]:
        factor = self.pipeline.vae.config.scaling_factor
        pixels = self.pipeline.vae.decode(torch.from_numpy(latent / factor)[None]).sample[0]
        levels = (pixels.movedim(0, -1).numpy() / 2 + 0.5).clip(0, 1) * 255
        return levels.round().astype(np.uint8)

    @torch.no_grad()
    def text(self, prompt: str, zeroed: list[int]) -> Text:
        """Both encoders with the rows of the zeroed ids gone from their tables."""
        hidden = []
        for name in ("", "_2"):
            tokenizer = getattr(self.pipeline, f"tokenizer{name}")
            encoder = getattr(self.pipeline, f"text_encoder{name}")
            given = tokenizer(
                prompt, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
            table = encoder.get_input_embeddings().weight
            before = table.detach().clone()
            for token in zeroed:
                table[token] = 0
            output = encoder(given, output_hidden_states=True)
            table.copy_(before)
            hidden.append(output.hidden_states[-2])
        return torch.cat(hidden, dim=-1), output.text_embeds

    @torch.no_grad()
    def attention(self, z: Array, timestep: int, text: Text) -> list[list[Array]]:
        """Of every cross-attention layer each head's probabilities [queries, L]."""
        layers: list[list[Array]] = []

        def attend(module: Any, args: Any, kwargs: Any) -> None:
            query = module.to_q(args[0])[0].numpy()
            key = module.to_k(kwargs["encoder_hidden_states"])[0].numpy()
            heads = []
            for q, k in zip(
                np.split(query, module.heads, 1), np.split(key, module.heads, 1), strict=True
            ):
                rows = []
                for one in q:
                    logits = np.array([one @ other / sqrt(len(one)) for other in k])
                    weights = np.exp(logits - logits.max())
                    rows.append(weights / weights.sum())
                heads.append(np.array(rows))
            layers.append(heads)

        hooks = [
            module.register_forward_pre_hook(attend, with_kwargs=True)
            for name, module in self.pipeline.unet.named_modules()
            if name.endswith("attn2")
        ]
        self.noise(z, timestep, text)
        for hook in hooks:
            hook.remove()
        return layers

    @torch.no_grad()
    def noise(self, z: Array, timestep: int, text: Text) -> Array:
        """What the U-Net predicts for one row."""
        side = z.shape[-1] * self.pipeline.vae_scale_factor
        eps = self.pipeline.unet(
            torch.from_numpy(z)[None],
            timestep,
            encoder_hidden_states=text[0],
            added_cond_kwargs={
                "text_embeds": text[1],
                "time_ids": torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float64),
            },
        ).sample
        return eps[0].numpy()

    def changed(self, source: str, target: str) -> tuple[str, list[int], list[int]]:
        """Probe prompt, changed columns, ids to zero."""
        tokenizer = self.pipeline.tokenizer
        one, two = (tokenizer(prompt, truncation=True).input_ids for prompt in (source, target))
        lost, added = [], []
        for kind, i1, i2, j1, j2 in SequenceMatcher(None, one, two).get_opcodes():
            if kind in ("delete", "replace"):
                lost += range(i1, i2)
            if kind == "insert":
                added += range(j1, j2)
        if lost:
            return source, lost, [one[i] for i in lost]
        return target, added, [two[j] for j in added]

    def soft_map(
        self,
        method: str,
        image: NDArray[np.uint8],
        source: str,
        target: str,
        *,
        strength: float,
        num_repeat: int,
        sample_mode: str,
        seed: int,
    ) -> Array:
        """methods.md, section 2, draw after draw."""
        timestep = STARTS[strength]
        alpha = self.alpha(timestep)
        generator = torch.Generator().manual_seed(seed)
        x0, std = self.posterior(image)
        if sample_mode == "sample":
            x0 = x0 + std * torch.randn(x0.shape, generator=generator).numpy()
        draws = 10 if method == "diffedit" else num_repeat
        total: Any = 0.0
        for _ in range(draws):
            noise = torch.randn(x0.shape, generator=generator).numpy()
            z = sqrt(alpha) * x0 + sqrt(1 - alpha) * noise
            if method in ("ours", "attn_based"):
                probe, columns, ids = self.changed(source, target)
                layers = self.attention(z, timestep, self.text(probe, []))
                total = total + summed(layers, columns)
                if method == "ours":
                    layers = self.attention(z, timestep, self.text(probe, ids))
                    total = total - summed(layers, columns)
                continue
            before = self.noise(z, timestep, self.text(source, []))
            after = self.noise(z, timestep, self.text(target, []))
            total = total + sum(
                abs(a - b) if method == "diffedit" else b - a
                for a, b in zip(after, before, strict=True)
            ) / len(after)
        return total / draws

    def edit(
        self,
        image: NDArray[np.uint8],
        source: str,
        target: str,
        mask: Mask,
        *,
        steps: int,
        w: float,
        seed: int,
    ) -> Array:
        """TurboEdit's final latent (methods.md, section 3), three rows a step."""
        x0, _ = self.posterior(image)
        timesteps = EDIT_STEPS[steps]
        noise = torch.randn(
            len(EDIT_NOISE[steps]), *x0.shape, generator=torch.Generator().manual_seed(seed)
        ).numpy()
        x = []
        for t, n in zip(EDIT_NOISE[steps], noise, strict=True):
            x.append(sqrt(self.alpha(t)) * x0 + sqrt(1 - self.alpha(t)) * n)
        x += [x0, x0]
        texts = {"source": self.text(source, []), "target": self.text(target, [])}

        def mu(z: Array, i: int, prompt: str) -> Array:
            alpha = self.alpha(timesteps[i])
            previous = self.alpha(timesteps[i + 1]) if i + 1 < steps else 1.0
            eps = self.noise(z, timesteps[i], texts[prompt])
            clean = (z - sqrt(1 - alpha) * eps) / sqrt(alpha)
            beta = 1 - alpha / previous
            return (sqrt(previous) * beta * clean + sqrt(alpha / previous) * (1 - previous) * z) / (
                1 - alpha
            )

        y = x[0]
        for i in range(steps):
            u = mu(x[i], i, "source")
            z = x[i + 1] - u
            cap = 15.5 * sqrt(z.size / (4 * 64 * 64)) if i == steps - 1 else float("inf")
            coeff = min(1.0, cap / sqrt((z * z).sum()))
            on_source, on_target = mu(y, i, "source"), mu(y, i, "target")
            y = coeff * x[i + 1] + (on_source - coeff * u) + w * (on_target - on_source)
            if i < steps - 1:
                y = np.where(mask, y, x[i + 1])
        return y


def summed(layers: list[list[Array]], columns: list[int], side: int = 16) -> Array:
    """Over the layers of side x side queries: the mean over heads and columns."""
    total = np.zeros((side, side))
    for heads in layers:
        if len(heads[0]) != side * side or not columns:
            continue
        for head in heads:
            for column in columns:
                total += head[:, column].reshape(side, side) / (len(heads) * len(columns))
    return total


def rescale(soft_map: Array) -> Array:
    return (soft_map - soft_map.min()) / (soft_map.max() - soft_map.min() + TINY)


def bilinear(soft_map: Array, size: int) -> Array:
    """Pixel after pixel, corners not aligned."""
    side = len(soft_map)
    shown = np.zeros((size, size))

    def between(i: int) -> tuple[int, int, float]:
        place = max((i + 0.5) * side / size - 0.5, 0)
        low = floor(place)
        return low, min(low + 1, side - 1), place - low

    for y in range(size):
        for x in range(size):
            (top, bottom, down), (left, right, along) = between(y), between(x)
            upper = soft_map[top, left] * (1 - along) + soft_map[top, right] * along
            lower = soft_map[bottom, left] * (1 - along) + soft_map[bottom, right] * along
            shown[y, x] = upper * (1 - down) + lower * down
    return shown


def binarise(method: str, soft_map: Array, threshold: float, size: int) -> tuple[Mask, Array]:
    """The mask, and how far every pixel is from its cut."""
    if method in ("ours", "attn_based"):
        distance = bilinear(rescale(soft_map), size) - threshold
        return distance > 0, abs(distance)
    shown = bilinear(soft_map, size)
    cut = threshold * shown.mean()
    if cut > 0:
        return shown.clip(0, cut) / cut > 0.5, abs(shown - cut / 2)
    return shown > cut / 2, abs(shown - cut / 2)


def nearest(mask: Mask, size: int) -> Mask:
    """Every cell takes the pixel in its middle."""
    scale = len(mask) / size
    return np.array(
        [
            [mask[floor((y + 0.5) * scale), floor((x + 0.5) * scale)] for x in range(size)]
            for y in range(size)
        ]
    )


def segmentation(prediction: Mask, target: Mask) -> dict[str, np.float32]:
    """methods.md, section 4, pixel after pixel; and the outlines' F-measure."""
    inner = prediction[1:-1, 1:-1], target[1:-1, 1:-1]
    found = ratios(prediction, target)
    found |= {f"{name}_inv": value for name, value in ratios(~prediction, ~target).items()}
    found["area"] = np.float32(sum(map(bool, prediction.flat))) / np.float32(prediction.size)
    found["dice_inner"] = ratios(*inner)["dice"]
    band = max(1, round(0.02 * hypot(*target.shape)))
    found["boundary_iou"] = np.float32(band_iou(*inner, band))
    found["boundary_f"] = np.float32(outline_f(*inner, ceil(0.0075 * hypot(*target.shape))))
    return found


def band_iou(prediction: Mask, target: Mask, width: int) -> float:
    """Of the pixels of either mask from which ``width`` steps of a king lead out of it."""
    bands = [rim(mask, width) for mask in (prediction, target)]
    either = len(bands[0] | bands[1])
    return len(bands[0] & bands[1]) / either if either else 1.0


def rim(mask: Mask, width: int) -> set[tuple[int, int]]:
    height, length = mask.shape

    def is_in(y: int, x: int) -> bool:
        return 0 <= y < height and 0 <= x < length and bool(mask[y, x])

    steps = range(-width, width + 1)
    return {
        (y, x)
        for y, x in np.ndindex(mask.shape)
        if is_in(y, x) and not all(is_in(y + down, x + along) for down in steps for along in steps)
    }


def ratios(prediction: Mask, target: Mask) -> dict[str, np.float32]:
    """Of counts in float32, as the reference's."""
    tp = fp = fn = np.float32(0)
    for predicted, wanted in zip(prediction.flat, target.flat, strict=True):
        tp += bool(predicted and wanted)
        fp += bool(predicted and not wanted)
        fn += bool(wanted and not predicted)
    return {
        "dice": (2 * tp + TINY) / (2 * tp + fn + fp + TINY),
        "precision": (tp + TINY) / (tp + fp + TINY),
        "recall": (tp + TINY) / (tp + fn + TINY),
        "iou": (tp + TINY) / (tp + fn + fp + TINY),
    }


def outline_f(prediction: Mask, target: Mask, reach: int) -> float:
    def outline(mask: Mask) -> list[tuple[int, int]]:
        height, width = mask.shape
        return [
            (y, x)
            for y in range(height)
            for x in range(width)
            if any(
                mask[min(y + down, height - 1), min(x + along, width - 1)] != mask[y, x]
                for down, along in ((0, 1), (1, 0), (1, 1))
            )
        ]

    def met(own: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        near = [any(hypot(y - v, x - u) <= reach for v, u in others) for y, x in own]
        return sum(near) / len(near)

    one, two = outline(prediction), outline(target)
    if not one or not two:
        return float(not one and not two)
    precision, recall = met(one, two), met(two, one)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def average_precision(soft_map: Array, target: Mask) -> float:
    """Threshold after threshold, from the highest value down."""
    total, before = 0.0, 0.0
    for cut in sorted(set(soft_map.flat), reverse=True):
        predicted = soft_map >= cut
        hits = int((predicted & target).sum())
        recall = hits / int(target.sum())
        total += (recall - before) * hits / int(predicted.sum())
        before = recall
    return total


def pixel_scores(
    source: NDArray[np.uint8], edited: NDArray[np.uint8], part: Mask
) -> dict[str, float]:
    """methods.md, section 5: both images multiplied by the part, averages over all pixels."""
    one, two = (image / 255 * part[..., None] for image in (source, edited))
    mse = sum((p - q) ** 2 for p, q in zip(one.flat, two.flat, strict=True)) / one.size
    psnr = -10 * np.log10(mse) if mse else float("inf")
    return {"mse": mse, "psnr": psnr, "ssim": ssim(one, two)}


def ssim(one: Array, two: Array) -> float:
    """Window by window, for images [H, W, 3] in [0, 1]; mirrored at the edges."""
    height, width, _ = one.shape
    profile = [exp(-(i * i) / (2 * 1.5**2)) for i in range(-5, 6)]
    weights = [[a * b / sum(profile) ** 2 for b in profile] for a in profile]

    def inside(position: int, size: int) -> int:
        if position < 0:
            return -position
        return 2 * size - 2 - position if position >= size else position

    values = []
    for y, x, colour in np.ndindex(one.shape):
        sums = np.zeros(5)
        for i, j in np.ndindex(11, 11):
            row, column = inside(y + i - 5, height), inside(x + j - 5, width)
            p, q = one[row, column, colour], two[row, column, colour]
            sums += weights[i][j] * np.array([p, q, p * p, q * q, p * q])
        p, q, pp, qq, pq = sums
        top = (2 * p * q + 1e-4) * (2 * (pq - p * q) + 9e-4)
        values.append(top / ((p * p + q * q + 1e-4) * (pp - p * p + qq - q * q + 9e-4)))
    return float(np.mean(values))
