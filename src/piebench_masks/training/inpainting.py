"""Trains the miniature's inpainting U-Net: five more input channels for the mask and what is left.

VAE, text encoders and tokenizers stay the miniature's own; what is written is the U-Net alone.
Knows scenes, the training loop and the miniature.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from piebench_masks.data.shapes.grammar import sample_edit
from piebench_masks.data.shapes.render import render_edit
from piebench_masks.diffusion.stable_diffusion import INPAINTING_CHANNELS
from piebench_masks.training.captions import Captions, tokenize
from piebench_masks.training.loop import Schedule, train
from piebench_masks.training.model import Denoiser
from piebench_masks.training.scenes import TRAINING_SEEDS
from piebench_masks.training.unet import TrainedAttention
from piebench_masks.training.vae import encode_images

log = logging.getLogger(__name__)

FIRST_SEED = 3 * 2**30
"""Of the edits, behind those that tune the miniature to few steps."""
CELLS = 16
"""Side of the masks, which is that of the latents."""
MASKS = 2
"""Drawn for each edit."""


@dataclass(frozen=True)
class Holes:
    """Targets of N edits and what is cut out of them, each in ``MASKS`` ways.

    latents, deviations: of the whole targets, float16 [N,4,16,16]; masks: bool [MASKS,N,16,16];
    left: latents of what the masks leave, float16 [MASKS,N,4,16,16]; captions: of the targets.
    """

    latents: Tensor
    deviations: Tensor
    masks: Tensor
    left: Tensor
    captions: Captions


def train_inpainting(
    folder: Path,
    work: Path,
    *,
    base: str,
    device: str,
    steps: int,
    batch: int,
    learning_rate: float,
    edits: int,
) -> None:
    """Train from the U-Net of the pipeline in ``base``; write ``folder`` with float16 weights.

    The folder is written at every checkpoint, with the averaged weights. The loss is the
    miniature's own of noise, of the whole picture; a twentieth of the prompts are empty.
    """
    torch.manual_seed(0)
    pipeline = Path(base)
    denoiser = inpainting_denoiser(pipeline).to(device)
    vae = AutoencoderKL.from_pretrained(pipeline / "vae", torch_dtype=torch.float32).to(device)
    holes = draw_holes(edits, vae, pipeline, work, device)
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )

    def loss(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(edits, (batch,), generator=generator)
        way = torch.randint(MASKS, (batch,), generator=generator)
        timesteps = torch.randint(1000, (batch,), generator=generator)
        late = torch.rand(batch, generator=generator) < 0.7
        timesteps = torch.where(late, 150 + timesteps * 850 // 1000, timesteps)
        alpha = scheduler.alphas_cumprod[timesteps][:, None, None, None]
        shape = holes.latents.shape[1:]
        drawn, noise = torch.randn(2, batch, *shape, generator=generator)
        x0 = holes.latents[rows] + holes.deviations[rows] * drawn
        noisy = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        masks = holes.masks[way, rows, None].float()
        seen = torch.cat([noisy, masks, holes.left[way, rows].float()], dim=1)
        caption = holes.captions.at(rows)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            predicted = denoiser(
                seen.to(device),
                timesteps.to(device),
                [ids.to(device) for ids in caption.ids],
                torch.ones(caption.words.shape, device=device),
            )
        error = (predicted.float() - noise.to(device)).square().mean(dim=(1, 2, 3))
        return {"noise": (error * (1 / alpha.flatten()).clamp_max(20).to(device) / 5).mean()}

    train(
        denoiser.unet,
        loss,
        Schedule(steps, learning_rate, warm_up=300, average=0.9995),
        work / "inpainting.safetensors",
        on_checkpoint=lambda: _export(folder, denoiser.unet),
    )


def inpainting_denoiser(base: Path) -> Denoiser:
    """The pipeline's text encoders, frozen, and its U-Net with further channels of zeros.

    Its input is diffusers' order: latents, mask, latents of the masked picture.
    """
    plain = UNet2DConditionModel.from_pretrained(base / "unet", torch_dtype=torch.float32)
    config = UNet2DConditionModel.load_config(base / "unet")
    unet = UNet2DConditionModel.from_config({**config, "in_channels": INPAINTING_CHANNELS})
    weights = plain.state_dict()
    first = weights["conv_in.weight"]
    weights["conv_in.weight"] = F.pad(first, (0, 0, 0, 0, 0, INPAINTING_CHANNELS - first.shape[1]))
    unet.load_state_dict(weights)
    unet.set_attn_processor(TrainedAttention())
    first_text, second_text = (
        kind.from_pretrained(base / name, dtype=torch.float32).requires_grad_(False)
        for kind, name in (
            (CLIPTextModel, "text_encoder"),
            (CLIPTextModelWithProjection, "text_encoder_2"),
        )
    )
    denoiser = Denoiser(first_text.config.vocab_size)
    denoiser.text_encoder, denoiser.text_encoder_2 = first_text, second_text
    denoiser.unet = unet
    return denoiser


def draw_holes(count: int, vae: AutoencoderKL, base: Path, work: Path, device: str) -> Holes:
    """Training edits of all kinds in turn, the tokenizers those in ``base``."""
    images = torch.empty(count, 3, 4 * CELLS, 4 * CELLS, dtype=torch.uint8)
    masks = torch.empty(MASKS, count, CELLS, CELLS, dtype=torch.bool)
    scenes = []
    for index in range(count):
        rng = np.random.default_rng(TRAINING_SEEDS[FIRST_SEED + index])
        edit = sample_edit(rng, index % 10)
        _, target, changed = render_edit(edit)
        scenes.append(edit.target)
        images[index] = torch.from_numpy(target).movedim(-1, 0)
        for way in range(MASKS):
            masks[way, index] = torch.from_numpy(draw_mask(rng, in_cells(changed)))
    latents, deviations = encode_images(vae, images, device, work / f"holes-{count}.safetensors")
    left = [
        encode_images(vae, images, device, work / f"holes-{count}-{way}.safetensors", each)[0]
        for way, each in enumerate(masks)
    ]
    return Holes(latents, deviations, masks, torch.stack(left), tokenize(scenes, base))


def in_cells(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cells [16,16] of which a mask [64,64] covers any part."""
    side = len(mask) // CELLS
    return np.asarray(mask.reshape(CELLS, side, CELLS, side).any(axis=(1, 3)))


def draw_mask(rng: Generator, changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is painted anew, bool [16,16], of an edit that changes the cells ``changed``.

    These cells, or these and their neighbours; the box around them, or a larger one; any box; any
    blobs, which may be added to them; or everything.
    """
    kind = rng.random()
    if kind < 0.1:
        return np.ones_like(changed)
    if kind < 0.35:
        mask = changed
        for _ in range(int(rng.random() * 3)):
            mask = _grown(mask)
        return mask
    if kind < 0.65:
        rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
        margin = rng.integers(0, 4, 4)
        ends = (rows[0], rows[-1], columns[0], columns[-1])
        return _box(
            ends[0] - margin[0], ends[1] + margin[1], ends[2] - margin[2], ends[3] + margin[3]
        )
    if kind < 0.8:
        sides, corner = 3 + rng.integers(0, 10, 2), rng.random(2)
        top, left = (corner * (CELLS + 1 - sides)).astype(int)
        return _box(top, top + sides[0] - 1, left, left + sides[1] - 1)
    mask = _blobs(rng, 0.1 + 0.5 * rng.random())
    return np.logical_or(mask, changed) if kind < 0.9 else mask


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    return (
        padded[1:-1, 1:-1]
        | padded[:-2, 1:-1]
        | padded[2:, 1:-1]
        | padded[1:-1, :-2]
        | padded[1:-1, 2:]
    )


def _box(top: int, bottom: int, left: int, right: int) -> NDArray[np.bool_]:
    """Between these cells, they included; what lies outside the picture is cut off."""
    mask = np.zeros((CELLS, CELLS), bool)
    mask[max(0, top) : bottom + 1, max(0, left) : right + 1] = True
    return mask


def _blobs(rng: Generator, share: float) -> NDArray[np.bool_]:
    """Where smooth noise is highest, that share of the cells."""
    coarse = torch.from_numpy(rng.random((1, 1, 5, 5)))
    smooth = F.interpolate(coarse, (CELLS, CELLS), mode="bicubic")[0, 0].numpy()
    return np.asarray(smooth >= np.quantile(smooth, 1 - share))


def _export(folder: Path, unet: UNet2DConditionModel) -> None:
    half = UNet2DConditionModel.from_config(unet.config).half()
    half.load_state_dict(unet.state_dict())
    half.save_pretrained(folder)
