"""What can be compared, family by family: the tests and the command `check.py` run the same.

Tolerances are the suggested ones of the goldens' README; where that has a measured figure only
(prompt embeddings, VAE mean) in the same proportion to it, four to six times.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from goldens import METHOD_NAMES, ONE, Pair
from PIL import Image
from torch import Tensor

from piebench_masks.data.pie_bench import load_pie_bench
from piebench_masks.data.rle import from_coco
from piebench_masks.diffusion.attention import AttentionRecorder
from piebench_masks.diffusion.backbone import Ablation, Conditioning
from piebench_masks.diffusion.ddpm import add_noise
from piebench_masks.diffusion.prompt_diff import token_weights
from piebench_masks.editing.turbo_edit import TIMESTEPS, edited, invert
from piebench_masks.masks import METHODS
from piebench_masks.masks.binarize import nearest_exact, rescale, upsample
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.lpips import Lpips
from piebench_masks.metrics.pixel import Pixel
from piebench_masks.metrics.segmentation import RATIOS, sweep_scores

EMBEDDING, LATENT, NOISE, RAW_MAP, FINAL_MAP, VAE_MEAN = 2e-6, 3e-4, 2e-5, 1e-5, 1e-4, 2e-4
LEVELS, SHARE_OF_PIXELS = 1, 1e-4
PIXEL_SCORES = ("lpips", "psnr", "ssim", "mse")
SAME_PICTURE, OWN_PICTURE, CLIP_POINTS = 1e-6, 1e-4, 1e-3
OWN_CLIP_POINTS = 1e-2
"""A picture that we paint differs by one level in some pixels, which the random CLIP amplifies."""


@dataclass(frozen=True)
class Check:
    """One comparison: a row of the table is all checks of one ``family``."""

    family: str
    case: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance


def furthest(found: Any, expected: Any) -> float:
    """Largest absolute difference; infinite if the shapes or the places of NaN differ."""
    one, two = (torch.as_tensor(values, dtype=torch.float64) for values in (found, expected))
    if one.shape != two.shape or not torch.equal(one.isnan(), two.isnan()):
        return float("inf")
    return (one - two).nan_to_num().abs().max().item()


def relative(found: float, expected: float | None) -> float:
    """Relative difference; None stands for NaN."""
    if expected is None:
        return furthest(found, torch.nan)
    return furthest(found, expected) / max(abs(expected), 1e-12)


def prompt_differences(pair: Pair) -> Iterator[Check]:
    """Token ids of both tokenizers, the probe prompt, its changed columns and the zeroed ids."""
    reference = pair.facts.get("prompt_diff") or {}
    found: dict[str, Any] = {}
    for number, tokenize in enumerate(pair.goldens.tokenizers):
        for side, prompt in zip(("source", "target"), pair.prompts, strict=True):
            found[f"{side}_ids{'_tokenizer_2' * number}"] = tokenize(prompt)
    if pair.diff is not None:
        found["prompt_is"] = pair.diff.probe
        found["columns"] = list(pair.diff.columns)
        found["token_ids_to_shift"] = list(pair.diff.ablated)
    if "slices" in reference:
        ranges = [range(*part) for part in reference["slices"]]
        reference = {**reference, "columns": [column for part in ranges for column in part]}
    for name in found.keys() & reference.keys():
        yield Check("prompt differences", name, float(found[name] != reference[name]), 0)


def annotations(pair: Pair) -> Iterator[Check]:
    """The annotated mask with its border, at the picture's size and at the latents'."""
    sample = pair.goldens.samples.get(pair.key)
    if sample is None or sample.mask is None:
        return
    ours = torch.from_numpy(from_coco(sample.mask))[None]
    sizes = {"gt_mask_packed": ours[0], "mask64/gt": nearest_exact(ours, 64)[0]}
    for name, mask in sizes.items():
        if name in pair.arrays:
            wrong = (mask != pair.mask(name, mask.shape[-1])).sum().item()
            yield Check("annotated masks (pixels)", name, wrong, 0)


def networks(pair: Pair) -> Iterator[Check]:
    """The parts of the model one by one: text encoders, VAE, U-Net, its attention layers."""
    backbone, arrays = pair.backbone, pair.arrays
    nothing = Ablation()
    rows = {"noise_based": (list(pair.prompts), [nothing, nothing])}
    if pair.diff is not None:
        probe = pair.prompts[pair.diff.probe == "target"]
        rows["attn_based"] = [probe], [nothing]
        rows["ours"] = [probe, probe], [nothing, Ablation(ids=frozenset(pair.diff.ablated))]
    texts = {name: backbone.encode_prompts(*row) for name, row in rows.items()}
    for name, text in texts.items():
        for part, values in (("prompt_embeds", text.hidden), ("pooled", text.pooled)):
            key = f"internal/{name}/{part}"
            if key in arrays:
                error = furthest(values, arrays[key])
                yield Check("prompt embeddings", key, error, EMBEDDING)
    if "internal/vae_mean" in arrays:
        mean = pair.posterior.mean / 0.13025
        error = furthest(mean, arrays["internal/vae_mean"])
        yield Check("VAE mean", "internal/vae_mean", error, VAE_MEAN)
    if "internal/noise_based/unet_in" not in arrays:
        return
    z = arrays["internal/noise_based/unet_in"]
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(8128))
    noised = add_noise(pair.posterior.mean, noise, backbone.level(499))
    yield Check("noised latents", "unet_in", furthest(noised, z), NOISE)
    if "internal/noise_based/noise_pred" in arrays:
        two = z.expand(2, -1, -1, -1), torch.tensor([499, 499])
        eps = backbone.predict_noise(*two, texts["noise_based"])
        error = furthest(eps, arrays["internal/noise_based/noise_pred"])
        yield Check("predicted noise", "internal/noise_pred", error, NOISE)
    for name in texts.keys() & {"ours", "attn_based"}:
        key = f"internal/{name}/layers16"
        if key in arrays:
            error = furthest(_attention_by_layer(pair, z, texts[name]), arrays[key])
            yield Check("attention maps by layer", key, error, RAW_MAP)


class _ByLayer(AttentionRecorder):
    """Also keeps what every layer adds."""

    def __init__(self, token_weights: Tensor, map_size: int) -> None:
        super().__init__(token_weights, map_size)
        self.sums = [self.maps.clone()]

    def add(self, probabilities: Tensor) -> None:
        super().add(probabilities)
        self.sums.append(self.maps.clone())


def _attention_by_layer(pair: Pair, z: Tensor, texts: Conditioning) -> Tensor:
    assert pair.diff is not None
    count = len(texts)
    recorder = _ByLayer(token_weights(pair.diff, 77).expand(count, -1), 16)
    batch = z.expand(count, -1, -1, -1), torch.full((count,), 499)
    pair.backbone.predict_noise(*batch, texts, recorder)
    layers = torch.stack(recorder.sums).diff(dim=0)
    return layers[:, 0] - layers[:, 1] if count == 2 else layers[:, 0]


def soft_maps(pair: Pair) -> Iterator[Check]:
    """Raw and final maps, for every method, setting and size that there is."""
    height, width = pair.size
    sizes = {"out64": (64, 64), "out128": (128, 128), "full": (height, width)}
    pattern = re.compile(r"map/\w+/(\w+)/nr(\d+)/s([\d.]+)/(argmax|sample)/(\w+)")
    for key, expected in pair.arrays.items():
        if not (found := pattern.fullmatch(key)):
            continue
        name, repeat, strength, mode, kind = found.groups()
        soft_map = pair.maps(int(repeat), float(strength), mode)[name]
        if kind == "raw16":
            yield Check("raw attention maps", key, furthest(soft_map, expected), RAW_MAP)
        elif name == "noise_based" and kind == "out64":
            yield Check("raw noise maps", key, furthest(soft_map, expected), NOISE)
        else:
            shown = soft_map if name == "noise_based" else rescale(soft_map)
            error = furthest(upsample(shown, sizes[kind], "reference"), expected)
            yield Check("upsampled maps", key, error, FINAL_MAP)


def masks(pair: Pair) -> Iterator[Check]:
    """Masks at the edit thresholds and over the sweep; pixels at the cut may fall either way."""
    for name in METHOD_NAMES:
        threshold = [METHODS[name].threshold]
        for kind in ("script", "api"):
            key = f"mask64/{kind}/{name}"
            if key in pair.arrays:
                ours, near = (
                    pair.script_masks(name, threshold)
                    if kind == "script"
                    else pair.cut(name, threshold, (64, 64))
                )
                wrong = ((ours[0] != pair.mask(key)) & ~near[0]).sum().item()
                yield Check("binarised masks (pixels)", key, wrong, 0)
    if "sweep/mask64" in pair.arrays:
        for label, mask in zip(pair.facts["sweep_labels"], pair.mask("sweep/mask64"), strict=True):
            name, threshold = label.split("/")
            ours, near = pair.script_masks(name, [float(threshold)])
            wrong = ((ours[0] != mask) & ~near[0]).sum().item()
            yield Check("masks of the sweep (pixels)", label, wrong, 0)


def segmentation(pair: Pair) -> Iterator[Check]:
    """Scores of the reference's pixel counts, bitwise; our pixels but for those at a cut."""
    if pair.annotation is None:
        return
    target = pair.annotation.numpy()
    for name, swept in pair.facts.get("segmentation", {}).items():
        rows = list(swept.values())
        areas = np.array([row["area"] for row in rows])
        hits = np.array([round(row["precision"] * row["area"]) for row in rows])
        counted = [
            sweep_scores(mask.astype(np.float32), np.float32([1]), target)
            for mask in _with_counts(hits, areas - hits, target)
        ]
        cuts = list(map(float, swept))
        predicted, near = pair.cut(name, cuts, (512, 512))
        ours64, near64 = nearest_exact(predicted, 64), nearest_exact(near, 64)
        own_hits = (predicted.numpy() & target).sum((-2, -1))
        for i, (label, row) in enumerate(swept.items()):
            case = f"{name}/{label}"
            wrong = sum(counted[i][column] != np.float32(row[column]) for column in RATIOS).item()
            yield Check("segmentation scores (unequal bits)", case, float(wrong), 0)
            unsure = near[i].sum().item()
            found = abs(predicted[i].sum().item() - areas[i]), abs(own_hits[i] - hits[i])
            yield Check("segmentation masks (pixels)", case, max(0, *found, unsure) - unsure, 0)
            if not near64[i].any() and "mask64_sha1" in row:
                digest = hashlib.sha1(ours64[i].numpy().tobytes()).hexdigest()
                other = float(digest != row["mask64_sha1"])
                yield Check("segmentation masks at 64 (unequal bits)", case, other, 0)
        if (full := pair.arrays.get(f"map/euler/{name}/nr1/s0.5/argmax/full")) is not None:
            above = np.nextafter(np.float32(cuts), np.float32(np.inf))
            stored = sweep_scores(full.numpy(), above, target)
            for i, (label, row) in enumerate(swept.items()):
                wrong = sum(stored[column][i] != np.float32(row[column]) for column in RATIOS)
                case = f"{name}/{label} from the stored map"
                yield Check("segmentation scores (unequal bits)", case, float(wrong), 0)


def _with_counts(hits: np.ndarray, false_alarms: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Masks [T, H, W] with so many pixels inside and outside of the target."""
    rank = np.empty(target.size, dtype=int)
    for part in (target.ravel(), ~target.ravel()):
        rank[part] = np.arange(part.sum())
    wanted = np.where(target, hits[:, None, None], false_alarms[:, None, None])
    return rank.reshape(target.shape) < wanted


def edit_latents(pair: Pair) -> Iterator[Check]:
    """TurboEdit's final latents, and the figures of those that were not kept."""
    for label, latent in pair.edits.items():
        key = f"edit_{label}/latent" if label.startswith("api/") else f"edit/{label}/latent"
        if key in pair.arrays:
            error = furthest(latent, pair.arrays[key])
            yield Check("edited latents", label, error, LATENT)
        facts = pair.facts.get("edits", {}).get(label, {})
        if "latent_mean" in facts:
            found = [latent.mean().item(), latent.std().item()]
            error = furthest(found, [facts["latent_mean"], facts["latent_std"]])
            yield Check("mean and deviation of latents", label, error, LATENT)


def traces(pair: Pair) -> Iterator[Check]:
    """TurboEdit step by step: inversion, the edited branch, and the U-Net's rows."""
    source, target = pair.conditioning
    for steps, timesteps in TIMESTEPS.items():
        trace = {
            key.split("/")[-1]: values
            for key, values in pair.arrays.items()
            if key.startswith(f"trace/steps{steps}/")
        }
        if not trace:
            continue
        inversion = invert(
            pair.backbone, pair.posterior.mean, source, target, steps=steps, seed=8128
        )
        mask = pair.edit_mask("ours")[None]
        y = torch.cat(
            [*edited(pair.backbone, inversion, source, target, mask, ONE, steps=steps, w=1.5)]
        )
        found = {
            "timesteps": torch.tensor(timesteps),
            "x_ts": inversion.x[:, 0],
            "u_hat": inversion.u[:, 0],
            "prev_sample": y,
        }
        for name in found.keys() & trace.keys():
            error = furthest(found[name], trace[name])
            yield Check("TurboEdit's trace", f"steps{steps}/{name}", error, LATENT)
        if trace.keys() >= {"model_output", "x_ts", "prev_sample"}:
            before = torch.cat([trace["x_ts"][:1], trace["prev_sample"][:-1]])
            eps = pair.backbone.predict_noise(
                torch.stack([trace["x_ts"][:-1], before, before], dim=1).flatten(0, 1),
                torch.tensor(timesteps).repeat_interleave(3),
                Conditioning.cat([source, source, target] * steps),
            )
            error = furthest(eps, trace["model_output"].flatten(0, 1))
            yield Check("TurboEdit's predicted noise", f"steps{steps}", error, NOISE)
    for label, facts in pair.facts.get("edits", {}).items():
        if label.endswith("/none") and "z_norms" in facts:
            steps = len(facts["z_norms"])
            inversion = invert(
                pair.backbone, pair.posterior.mean, source, target, steps=steps, seed=8128
            )
            norms = (inversion.x[1:] - inversion.u).flatten(1).norm(dim=1)
            error = furthest(norms / torch.tensor(facts["z_norms"]), torch.ones(steps))
            yield Check("norms of z (relative)", label, error, 1e-5)


def sweep(pair: Pair) -> Iterator[Check]:
    """The latents under all masks of the sweep, pooled as they were kept."""
    if not pair.arrays.keys() >= {"sweep/mask64", "sweep/latent_pooled4"}:
        return
    distinct, which = pair.mask("sweep/mask64").unique(dim=0, return_inverse=True)
    pooled = torch.nn.functional.avg_pool2d(pair.turbo_edit(distinct), 4)[which]
    for i, (found, expected) in enumerate(
        zip(pooled, pair.arrays["sweep/latent_pooled4"], strict=True)
    ):
        yield Check("latents of the sweep", f"mask {i}", furthest(found, expected), LATENT)


def pictures(pair: Pair) -> Iterator[Check]:
    """Decoded edits against the stored pictures."""
    for label, latent in pair.edits.items():
        if (picture := _stored_picture(pair, label)) is not None:
            key = f"edit_{label}/latent" if label.startswith("api/") else f"edit/{label}/latent"
            decoded = pair.backbone.decode(pair.arrays.get(key, latent)[None])[0].numpy()
            off = np.abs(decoded.astype(int) - picture)
            yield Check("decoded pictures (levels)", label, float(off.max()), LEVELS)
            share = float((off > 0).mean())
            yield Check("decoded pictures (pixels off)", label, share, SHARE_OF_PIXELS)


def editing_metrics(pair: Pair) -> Iterator[Check]:
    """CLIP, LPIPS, PSNR, SSIM, MSE of the stored picture, or of the one that we paint ourselves."""
    facts = {
        label: values
        for label, values in pair.facts.get("edits", {}).items()
        if values.keys() & {"clip_whole", "nomask", "image_mean"}
    }
    if not facts:
        return
    scored = any("nomask" in values or "clip_whole" in values for values in facts.values())
    mask = None if pair.annotation is None else pair.annotation.numpy()
    source = np.array(pair.image.resize((512, 512), Image.Resampling.BICUBIC))
    case = EditCase(source, None, mask, *pair.prompts)
    stored = {label: _stored_picture(pair, label) for label in facts}
    painted = [label for label, picture in stored.items() if picture is None]
    if painted:
        distinct, which = torch.stack([pair.edits[label] for label in painted]).unique(
            dim=0, return_inverse=True
        )
        decoded = pair.backbone.decode(distinct).numpy()
        stored |= {label: decoded[i] for label, i in zip(painted, which.tolist(), strict=True)}
    images, which_image = np.unique(np.stack(list(stored.values())), axis=0, return_inverse=True)
    found = {
        name: values[which_image.ravel()]
        for metric in (pair.goldens.metrics if scored else ())
        for name, values in metric(case, images).items()
    }
    for i, (label, values) in enumerate(facts.items()):
        own = label in painted
        whose = "our own picture" if own else "the stored picture"
        if "image_mean" in values:
            error = abs(float(stored[label].mean()) - values["image_mean"])
            yield Check("mean level of pictures", label, error, SHARE_OF_PIXELS)
        expected = {f"{name}_unedit_part": values.get(name, ...) for name in PIXEL_SCORES}
        expected |= {name: values.get("nomask", {}).get(name, ...) for name in PIXEL_SCORES}
        for column, wanted in expected.items():
            if wanted is not ...:
                kind = "LPIPS" if column.startswith("lpips") else "PSNR, SSIM, MSE"
                error = relative(found[column][i], wanted)
                exact = SAME_PICTURE if kind != "LPIPS" else 1e-5
                tolerance = OWN_PICTURE if own else exact
                family = f"{kind} of {whose} (relative)"
                yield Check(family, f"{label} {column}", error, tolerance)
        for column in ("clip_whole", "clip_edited"):
            if column in values:
                wanted = float("nan") if values[column] is None else values[column]
                error = furthest(found[column][i], wanted)
                family = f"CLIP of {whose} (points)"
                tolerance = OWN_CLIP_POINTS if own else CLIP_POINTS
                yield Check(family, f"{label} {column}", error, tolerance)


def _stored_picture(pair: Pair, label: str) -> np.ndarray | None:
    stem = f"edit_{label}" if label.startswith("api/") else label
    path = pair.goldens.folder / "edited" / f"{pair.key}__{stem.replace('/', '_')}.png"
    return np.array(Image.open(path).convert("RGB")) if path.exists() else None


FAMILIES: tuple[Callable[[Pair], Iterator[Check]], ...] = (
    prompt_differences,
    annotations,
    networks,
    soft_maps,
    masks,
    segmentation,
    edit_latents,
    traces,
    sweep,
    pictures,
    editing_metrics,
)


def official_scores(root: Path, weights: Path) -> Iterator[Check]:
    """Published edits under PIE-Bench's official evaluator (``official_metrics.json``)."""
    expected = json.loads((root / "official_metrics.json").read_text())
    parsed = load_pie_bench(root, mask_size=512, border=1, on_error="skip")
    samples, rejections = parsed.samples, parsed.rejections
    known = {sample.id: sample for sample in samples}
    backbone = weights / "squeezenet1_1_features.safetensors"
    metrics = [Pixel(rows=3), Lpips(backbone=backbone, rows=3)]
    for rejection in rejections:
        yield Check("official samples", f"{rejection.sample_id}: {rejection.reason}", np.inf, 0)
    for sample_id in expected.keys() & known.keys():
        sample, wanted = known[sample_id], expected[sample_id]
        assert sample.mask is not None
        mask = from_coco(sample.mask)
        (path,) = root.glob(f"output/*/annotation_images/{sample.image_path}")
        strip = np.array(Image.open(path).convert("RGB"))
        picture = Image.open(root / "annotation_images" / sample.image_path).convert("RGB")
        case = EditCase(np.array(picture), None, mask, "", "")
        found = {
            name: values.item()
            for metric in metrics
            for name, values in metric(case, strip[None, :, -strip.shape[0] :]).items()
        }
        if "mask_pixels" in wanted:
            error = abs(int(mask.sum()) - wanted["mask_pixels"])
            yield Check("official mask sizes (pixels)", sample_id, error, 0)
        for column in found.keys() & wanted.keys():
            name = column.split("_")[0].upper()
            error = relative(found[column], wanted[column])
            yield Check(f"official {name} (relative)", f"{sample_id} {column}", error, OWN_PICTURE)
