"""EDICT (Wallace et al., arXiv 2211.12446): two coupled latents whose inversion is exact.

Knows nothing of files or of where a mask came from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Capability, Conditioning
from piebench_masks.diffusion.ddim import ddim_step
from piebench_masks.diffusion.guidance import evaluations, guided_noise
from piebench_masks.diffusion.level import Level
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import unshifted


@dataclass(frozen=True)
class CoupledInversion:
    """B sources at K + 1 levels of noise, noisiest first, each as a pair of latents.

    x: [K + 1, 2, B, C, h, w] float64, x[K] twice the picture's; nfe: long [B], U-Net evaluations.
    """

    levels: list[Level]
    x: Tensor
    nfe: Tensor

    @property
    def timesteps(self) -> list[float]:
        return [level.timestep for level in self.levels[:-1]]


@dataclass(frozen=True)
class Edict(Editor):
    """EDICT as an editor: inverted with the source prompt, sampled with the target's.

    Each of the two latents takes the steps of DDIM with the noise predicted from the other, in
    double precision; guidance is the same on both ways. strength: the share of the schedule, from
    the picture on, that is inverted; mixing: the weight of a latent itself where the two are mixed
    after a step. compat: reference does as the published code does. It starts from a draw of the
    VAE's posterior, of ``seed``, on a schedule one time step lower.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ()
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    steps: int = 50
    strength: float = 0.8
    guidance: float = 3.0
    mixing: float = 0.93
    compat: Compat = "exact"
    seed: int = 1

    @torch.inference_mode()
    def invert(self, backbone: Backbone, sources: Sources) -> CoupledInversion:
        posterior, levels = sources.encoded, backbone.levels(self.steps)
        x0 = posterior.mean
        if self.compat == "reference":
            x0, levels = posterior.draw(self.seed), unshifted(backbone, self.steps)
        levels = levels[self.steps - int(self.steps * self.strength) :]
        noise = self._noise(backbone, backbone.encode_prompts(sources.source_prompts))
        x = [torch.stack([x0, x0]).double()]
        for i in reversed(range(len(levels) - 1)):
            pair = unmixed(x[0], self.mixing)
            x.insert(0, updated(pair, noise, levels[i + 1], levels[i], 1 - i % 2))
        calls = 2 * evaluations(self.guidance) * (len(levels) - 1)
        return CoupledInversion(levels, torch.stack(x), torch.full((len(x0),), calls))

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: CoupledInversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        return decoded(backbone, self.sample(backbone, sources, inverted, masks, owner))

    @torch.inference_mode()
    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: CoupledInversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        """After every step but the last, both latents outside the mask are the source's."""
        noise = self._noise(backbone, backbone.encode_prompts(sources.target_prompts)[owner])
        pair, levels = inverted.x[0][:, owner], inverted.levels
        last = len(levels) - 2
        for i in range(last + 1):
            pair = mixed(updated(pair, noise, levels[i], levels[i + 1], i % 2), self.mixing)
            if i < last:
                pair = torch.where(masks[:, None], pair, inverted.x[i + 1][:, owner])
        calls = 2 * evaluations(self.guidance) * (last + 1)
        return Sampled(pair[0], torch.full((len(owner),), calls))

    def _noise(self, backbone: Backbone, text: Conditioning) -> "Noise":
        empty_prompt = backbone.encode_prompts([""])[[0] * len(text)]
        return lambda z, timestep: guided_noise(
            backbone, z, timestep, text, empty_prompt, self.guidance
        )


Noise = Callable[[Tensor, float], Tensor]
"""Predicted in latents [N, C, h, w] at a time step."""


def updated(pair: Tensor, noise: Noise, level: Level, following: Level, first: int) -> Tensor:
    """A pair [2, N, C, h, w] at the level ``following``, less noisy or noisier.

    first: which of the two takes its step first; the other sees what has become of it.
    """
    timestep = max(level.timestep, following.timestep)
    latents = list(pair)
    for k in (first, 1 - first):
        latents[k] = ddim_step(latents[k], noise(latents[1 - k], timestep), level, following)
    return torch.stack(latents)


def mixed(pair: Tensor, p: float) -> Tensor:
    """Both latents [2, ...] as averages of the two, the second of the new first."""
    x, y = pair
    x = p * x + (1 - p) * y
    return torch.stack([x, (1 - p) * x + p * y])


def unmixed(pair: Tensor, p: float) -> Tensor:
    """What `mixed` made the pair [2, ...] of."""
    x, y = pair
    y = (y - (1 - p) * x) / p
    return torch.stack([(x - (1 - p) * y) / p, y])
