"""ChordEdit (arXiv 2602.19083): one step along the difference of two prompts' clean pictures.

From the formula; the map method `chord` looks at the same difference. Knows latents and masks; must
not know files or where a mask came from.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Capability, Conditioning
from piebench_masks.diffusion.ddim import clean_difference, clean_prediction
from piebench_masks.diffusion.ddpm import add_noise, timestep_of
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.chord import chordal


@dataclass(frozen=True)
class Change:
    """What a step changes, of B samples: u [B, C, h, w]; nfe: long [B], U-Net evaluations."""

    u: Tensor
    nfe: Tensor


@dataclass(frozen=True)
class ChordEdit(Editor):
    """ChordEdit as an editor: x0 + strength u inside the mask, and one prediction of the target.

    start, delta: shares of the noise schedule between which u is taken; one noise for both levels.
    refinement: the share to which the result is noised, and from which the target prompt predicts
    it clean, under no mask; None: it is left as it is, and outside the mask the source's own.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ("few_steps",)
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    start: float = 0.9
    delta: float = 0.15
    strength: float = 1.0
    refinement: float | None = 0.3
    seed: int = 8128

    def __post_init__(self) -> None:
        if not 0 < self.delta < self.start <= 1:
            raise BenchmarkError(
                f"chord.start is {self.start} and delta {self.delta}: choose 0 < delta < start <= 1"
            )
        if self.refinement is not None and not 0 < self.refinement <= 1:
            raise BenchmarkError(
                f"chord.refinement is {self.refinement}: choose a share above 0 to 1, or null"
            )

    @torch.inference_mode()
    def invert(self, backbone: Backbone, sources: Sources) -> Change:
        x0 = sources.encoded.mean
        noise = self._noise(x0)
        first, second = map(backbone.level, map(timestep_of, (self.start, self.start - self.delta)))
        z = torch.cat([add_noise(x0, noise, level) for level in (first, second)])
        timesteps = torch.tensor([first.timestep, second.timestep]).repeat_interleave(len(x0))
        source = backbone.encode_prompts(sources.source_prompts)
        target = backbone.encode_prompts(sources.target_prompts)
        eps = backbone.predict_noise(
            torch.cat([z, z]), timesteps.repeat(2), Conditioning.cat([source] * 2 + [target] * 2)
        ).unflatten(0, (2, 2, len(x0)))
        dv = clean_difference(eps[0, 0], eps[1, 0], first)
        dv_below = clean_difference(eps[0, 1], eps[1, 1], second)
        u = chordal(dv, dv_below, self.start, self.delta)
        return Change(u, torch.full((len(x0),), 4))

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Change,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        return decoded(backbone, self.sample(backbone, sources, inverted, masks, owner))

    @torch.inference_mode()
    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Change,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        x0 = sources.encoded.mean[owner]
        x = torch.where(masks[:, None], x0 + self.strength * inverted.u[owner], x0)
        nfe = torch.zeros(len(owner), dtype=torch.long)
        if self.refinement is not None:
            level = backbone.level(timestep_of(self.refinement))
            target = backbone.encode_prompts(sources.target_prompts)[owner]
            z = add_noise(x, self._noise(x), level)
            eps = backbone.predict_noise(z, torch.full((len(z),), level.timestep), target)
            x, nfe = clean_prediction(z, eps, level), nfe + 1
        return Sampled(x, nfe)

    def _noise(self, x0: Tensor) -> Tensor:
        """One draw for all samples and levels: [C, h, w]."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(x0.shape[1:], generator=generator).to(x0.device)
