"""Tunes the miniature's U-Net to few steps, as SDXL-Turbo is tuned to its own.

TurboEdit asks the U-Net at time steps for pictures with less noise than belongs to them, and for
its own intermediate edits. One loss has it find the true edit from those, as far as the prompts
and the source say what that is. Another has both prompts say the same where the edit changes
nothing, words of the target point at where the edit will be, and lost words nowhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.data.shapes.grammar import EVERYTHING, Scene, sample_edit
from piebench_masks.diffusion.ddpm import posterior_mean
from piebench_masks.diffusion.level import CLEAN, Level
from piebench_masks.editing.turbo_edit import NOISE_TIMESTEPS, TIMESTEPS
from piebench_masks.training.captions import Captions, ablated_words, pointed_at, tokenize
from piebench_masks.training.model import Denoiser
from piebench_masks.training.scenes import TRAINING_SEEDS, pool_of, to_unit_range
from piebench_masks.training.vae import encode_images

STEPS = 4
SHARES = (0.1, 0.2, 0.3, 0.4)
"""How often each of the steps is trained: what the last one finds is the edit."""
KINDS = (1, 2, 3, 4, 5, 6, 8, 9)
"""The edit types whose result is known from the source, all but materials: their textures lie
anywhere, and the mean of all textures is none."""
SMALL = 0.2
"""Squared difference of an edit's latents from the source's, of small edits: these weigh more, for
what counts is the error beside doing nothing."""
SEEN = 0.4
"""Weight of the error of pixels beside that of latents."""
GUIDANCE = (1.2, 1.8)
COMPARED = (300, 700)
"""Timesteps around those at which map methods compare two prompts' predictions."""
PROBED = 0.75
"""How often it is the target's prompt that loses words: `ours` asks of the source's when something
is deleted."""
FIRST_SEED = 2**31
"""Of the edits, behind the seeds of single scenes."""


@dataclass(frozen=True)
class EditPool:
    """Latents [N,4,h,w] and captions of the sources and of the true edits.

    regions: float16 [N,4,h,w] of each side, as of `Pool`; changed: bool [N,1,h,w], the cells of
    which an edit changes a pixel; images: uint8 [N,3,H,W] of the true edits; apart: [N], their
    mean squared difference from the sources, of colours in [-1, 1].
    """

    source: Tensor
    target: Tensor
    source_captions: Captions
    target_captions: Captions
    source_regions: Tensor
    target_regions: Tensor
    changed: Tensor
    images: Tensor
    apart: Tensor


@dataclass(frozen=True)
class Compared:
    """Of predictions for noised sources: under the source's prompts, under the target's, and under
    one of the two without some of its words, as `ours` compares them.

    silence: how far the first two differ where the true edit changes nothing, mean absolute
    difference, []; targets [3B,32,h*w] and words, bool [3B,32]: where attention should lie, and
    whose; that of a lost word everywhere.
    """

    silence: Tensor
    targets: Tensor
    words: Tensor


def draw_edits(count: int, vae: AutoencoderKL, folder: Path, work: Path, device: str) -> EditPool:
    """Training edits of ``KINDS`` in turn; the tokenizers are those in ``folder``."""
    sides: dict[str, list[Scene]] = {"source": [], "target": []}
    for index in range(count):
        rng = np.random.default_rng(TRAINING_SEEDS[FIRST_SEED + index])
        edit = sample_edit(rng, KINDS[index % len(KINDS)])
        sides["source"].append(edit.source)
        sides["target"].append(edit.target)
    pools = {side: pool_of(scenes) for side, scenes in sides.items()}
    latents = [
        encode_images(vae, pool.images, device, work / f"edits-{count}-{side}.safetensors")[0]
        for side, pool in pools.items()
    ]
    captions = [tokenize(scenes, folder) for scenes in sides.values()]
    source, target = pools["source"], pools["target"]
    differ = (source.images != target.images).any(dim=1, keepdim=True)
    changed = F.adaptive_max_pool2d(differ.half(), latents[0].shape[2:]).bool()
    apart = torch.stack(
        [
            (to_unit_range(one) - to_unit_range(other)).square().mean()
            for one, other in zip(source.images, target.images, strict=True)
        ]
    )
    return EditPool(
        source=latents[0],
        target=latents[1],
        source_captions=captions[0],
        target_captions=captions[1],
        source_regions=source.regions,
        target_regions=target.regions,
        changed=changed,
        images=target.images,
        apart=apart,
    )


@dataclass(frozen=True)
class FewSteps:
    """What ``denoiser`` is asked for in few-step editing, on ``pool``'s edits; ``vae`` is fixed."""

    denoiser: Denoiser
    vae: AutoencoderKL
    alphas_cumprod: Tensor
    pool: EditPool
    device: str

    def editing(self, batch: int, generator: torch.Generator) -> Tensor:
        """Error of the clean latents that the U-Net finds at one of the steps of edits, [].

        At the same step, from the source's noised latents under its own prompt the source, and from
        the edit's latents, brought there by the U-Net itself, the true edit: not under the target's
        prompt alone but guided away from the source's, as the edit will be, by a strength drawn
        from ``GUIDANCE``. Cells that the edit does not change stay the source's. Both errors are
        squared, the edit's weighted by how ``SMALL`` the edit is. Beside them, ``SEEN`` times the
        error of the decoded edit's pixels: the root of their squared error beside that of doing
        nothing, so that what no prompt tells weighs less than what is nearly right. All weighted as
        the noise is.
        """
        pool, device = self.pool, self.device
        rows = torch.randint(len(pool.source), (batch,), generator=generator)
        source, target = (side[rows].float().to(device) for side in (pool.source, pool.target))
        target = torch.where(pool.changed[rows].to(device), target, source)
        captions = pool.source_captions.at(rows), pool.target_captions.at(rows)
        levels = [*map(self._level, TIMESTEPS[STEPS]), CLEAN]
        last = int(torch.multinomial(torch.tensor(SHARES), 1, generator=generator))
        x = []
        for level in map(self._level, NOISE_TIMESTEPS[STEPS]):
            noise = torch.randn(source.shape, generator=generator).to(device)
            x.append(level.signal * source + level.noise * noise)
        x += [source, source]

        def predict(latents: list[Tensor], step: int) -> list[Tensor]:
            timesteps = torch.full((batch,), TIMESTEPS[STEPS][step])
            return self._predicted(latents, [captions[0], *captions], timesteps)

        guidance = torch.empty(batch, 1, 1, 1).uniform_(*GUIDANCE, generator=generator).to(device)
        y = x[0]
        with torch.no_grad():
            for step in range(last):
                latents = [x[step], y, y]
                found = predict(latents, step)
                u, mu_source, mu_target = (
                    posterior_mean(one, eps, levels[step], levels[step + 1])
                    for one, eps in zip(latents, found, strict=True)
                )
                y = x[step + 1] + (mu_source - u) + guidance * (mu_target - mu_source)
        level = levels[last]
        latents = [x[last], y, y]
        found = predict(latents, last)
        own, unchanged, changed = (
            (one - level.noise * eps) / level.signal
            for one, eps in zip(latents, found, strict=True)
        )
        edited = unchanged + guidance * (changed - unchanged)
        apart = (target - source).square().mean(dim=(1, 2, 3), keepdim=True)
        error = (own - source).square() + (edited - target).square() * SMALL / (apart + SMALL / 4)
        error = error.mean() + SEEN * self._seen(edited, rows)
        alpha = level.alpha.item()
        return error * alpha / (1 - alpha) * min(1 / alpha, 20) / 5

    def compare_prompts(self, batch: int, generator: torch.Generator) -> Compared:
        """Of the noised sources at timesteps in ``COMPARED``."""
        pool, device = self.pool, self.device
        rows = torch.randint(len(pool.source), (batch,), generator=generator)
        source = pool.source[rows].float()
        timesteps = torch.randint(*COMPARED, (batch,), generator=generator)
        alpha = self.alphas_cumprod[timesteps][:, None, None, None]
        noise = torch.randn(source.shape, generator=generator)
        noisy = (alpha.sqrt() * source + (1 - alpha).sqrt() * noise).to(device)
        captions = [pool.source_captions.at(rows), pool.target_captions.at(rows)]
        regions = [pool.source_regions[rows], pool.target_regions[rows]]
        probed = int(torch.rand((), generator=generator) < PROBED)
        captions.append(captions[probed])
        regions.append(regions[probed])
        lost = torch.zeros(3, *captions[0].words.shape, dtype=torch.bool)
        lost[2] = ablated_words(captions[2], generator, share=1.0)
        own, other, _ = self._predicted([noisy] * 3, captions, timesteps, lost)
        still = ~pool.changed[rows].to(device)
        apart = (other - own).abs().mean(dim=1, keepdim=True)
        pointers = torch.stack([one.regions for one in captions])
        pointers = torch.where(lost, EVERYTHING, pointers).flatten(0, 1)
        words = torch.stack([captions[0].words, captions[1].words, lost[2]])
        return Compared(
            (apart * still).sum() / still.sum().clamp_min(1),
            pointed_at(torch.cat(regions), pointers),
            words.flatten(0, 1),
        )

    def _seen(self, edited: Tensor, rows: Tensor) -> Tensor:
        """Root of the decoded edits' squared error beside that of doing nothing, mean, [].

        0.02 and 0.05 keep the smallest edits and the smallest errors from drowning the others.
        """
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            decoded = self.vae.decode(edited / self.vae.config.scaling_factor).sample
        target = to_unit_range(self.pool.images[rows]).to(self.device)
        error = (decoded.float() - target).square().mean(dim=(1, 2, 3))
        beside_nothing = error / (self.pool.apart[rows].to(self.device) + 0.02)
        return (beside_nothing + 0.05).sqrt().mean()

    def _predicted(
        self,
        latents: Sequence[Tensor],
        captions: Sequence[Captions],
        timesteps: Tensor,
        lost: Tensor | None = None,
    ) -> list[Tensor]:
        """The noise [B,4,h,w] in each of the N latents under its captions; timesteps: [B]; lost:
        the words without their embeddings, bool [N,B,32], None for none.
        """
        words = torch.stack([one.words for one in captions])
        keep = torch.ones_like(words) if lost is None else ~lost
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            predicted = self.denoiser(
                torch.cat(list(latents)),
                timesteps.repeat(len(latents)).to(self.device),
                [torch.cat([one.ids[k] for one in captions]).to(self.device) for k in range(2)],
                keep.flatten(0, 1).float().to(self.device),
            )
        return list(predicted.float().split(len(timesteps)))

    def _level(self, timestep: int) -> Level:
        return Level.of_alpha(timestep, self.alphas_cumprod[timestep])
