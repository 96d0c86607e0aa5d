"""Tunes the miniature's U-Net to few steps, as SDXL-Turbo is tuned to its own.

TurboEdit asks the U-Net at time steps for pictures with less noise than belongs to them, and for
its own intermediate edits. This loss has it find the true edit from those, as far as the prompts
and the source say what that is.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from piebench_masks.data.shapes.grammar import Scene, sample_edit
from piebench_masks.diffusion.ddpm import posterior_mean
from piebench_masks.diffusion.level import CLEAN, Level
from piebench_masks.editing.turbo_edit import NOISE_TIMESTEPS, TIMESTEPS
from piebench_masks.training.captions import Captions, tokenize
from piebench_masks.training.model import Denoiser
from piebench_masks.training.scenes import TRAINING_SEEDS, pool_of
from piebench_masks.training.vae import encode_images

STEPS = 4
KINDS = (1, 2, 3, 4, 5, 6, 8, 9)
"""The edit types whose result is known from the source, all but materials: their textures lie
anywhere, and the mean of all textures is none."""
GUIDANCE = (1.0, 2.0)
FIRST_SEED = 2**31
"""Of the edits, behind the seeds of single scenes."""


@dataclass(frozen=True)
class EditPool:
    """Latents [N,4,h,w] and captions of the sources and of the true edits."""

    source: Tensor
    target: Tensor
    source_captions: Captions
    target_captions: Captions


def draw_edits(count: int, vae: AutoencoderKL, folder: Path, work: Path, device: str) -> EditPool:
    """Training edits of ``KINDS`` in turn; the tokenizers are those in ``folder``."""
    sides: dict[str, list[Scene]] = {"source": [], "target": []}
    for index in range(count):
        rng = np.random.default_rng(TRAINING_SEEDS[FIRST_SEED + index])
        edit = sample_edit(rng, KINDS[index % len(KINDS)])
        sides["source"].append(edit.source)
        sides["target"].append(edit.target)
    latents = [
        encode_images(
            vae, pool_of(scenes).images, device, work / f"edits-{count}-{side}.safetensors"
        )[0]
        for side, scenes in sides.items()
    ]
    captions = [tokenize(scenes, folder) for scenes in sides.values()]
    return EditPool(latents[0], latents[1], captions[0], captions[1])


def editing_loss(
    denoiser: Denoiser,
    alphas_cumprod: Tensor,
    pool: EditPool,
    batch: int,
    device: str,
    generator: torch.Generator,
) -> Tensor:
    """Squared error of the clean latents that the U-Net finds at one of the steps of edits.

    At the same step, from the source's noised latents under its own prompt the source, and from
    the edit's latents, brought there by the U-Net itself, the true edit: not under the target's
    prompt alone but guided away from the source's, as the edit will be, by a strength drawn from
    ``GUIDANCE``. Weighted as the noise is.
    """
    rows = torch.randint(len(pool.source), (batch,), generator=generator)
    source, target = (side[rows].float().to(device) for side in (pool.source, pool.target))
    captions = pool.source_captions.at(rows), pool.target_captions.at(rows)
    level_of = partial(_level, alphas_cumprod)
    levels = [*map(level_of, TIMESTEPS[STEPS]), CLEAN]
    last = int(torch.randint(STEPS, (), generator=generator))
    x = []
    for timestep in NOISE_TIMESTEPS[STEPS]:
        noise = torch.randn(source.shape, generator=generator).to(device)
        level = level_of(timestep)
        x.append(level.signal * source + level.noise * noise)
    x += [source, source]

    def predict(latents: list[Tensor], sides: list[Captions], step: int) -> list[Tensor]:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            predicted = denoiser(
                torch.cat(latents),
                torch.full((batch * len(latents),), TIMESTEPS[STEPS][step], device=device),
                [torch.cat([c.ids[k] for c in sides]).to(device) for k in range(2)],
                torch.cat([torch.ones(c.words.shape) for c in sides]).to(device),
            )
        return list(predicted.float().split(batch))

    guidance = torch.empty(batch, 1, 1, 1).uniform_(*GUIDANCE, generator=generator).to(device)
    y = x[0]
    with torch.no_grad():
        for step in range(last):
            latents = [x[step], y, y]
            found = predict(latents, [captions[0], captions[0], captions[1]], step)
            u, mu_source, mu_target = (
                posterior_mean(one, eps, levels[step], levels[step + 1])
                for one, eps in zip(latents, found, strict=True)
            )
            y = x[step + 1] + (mu_source - u) + guidance * (mu_target - mu_source)
    level = levels[last]
    latents = [x[last], y, y]
    found = predict(latents, [captions[0], *captions], last)
    own, unchanged, changed = (
        (one - level.noise * eps) / level.signal for one, eps in zip(latents, found, strict=True)
    )
    edited = unchanged + guidance * (changed - unchanged)
    error = (own - source).square().mean() + (edited - target).square().mean()
    alpha = level.alpha.item()
    return error * alpha / (1 - alpha) * min(1 / alpha, 20) / 5


def _level(alphas_cumprod: Tensor, timestep: int) -> Level:
    return Level.of_alpha(timestep, alphas_cumprod[timestep])
