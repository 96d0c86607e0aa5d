"""What is lost where nothing is edited: by the autoencoder, or by an inversion and the way back."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.diffusion.guidance import evaluations, guided_noise
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import Inversion, Invert, ddim


@dataclass(frozen=True)
class Reconstruction(Editor):
    """The picture inverted with its own prompt and sampled back with it, whatever the masks.

    With 0 steps it is encoded and decoded alone: no edit through the autoencoder keeps more.
    """

    version: ClassVar[int] = 2
    needs: ClassVar[tuple[Capability, ...] | None] = ()
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    inversion: Invert = ddim
    steps: int = 0
    guidance: float = 7.5

    def invert(self, backbone: Backbone, sources: Sources) -> Inversion:
        x0 = sources.encoded.mean
        if self.steps == 0:
            return Inversion([], x0[None], [], torch.zeros(len(x0), dtype=torch.long))
        source = backbone.encode_prompts(sources.source_prompts)
        return self.inversion(backbone, x0, source, steps=self.steps, guidance=self.guidance)

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Inversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        y, nfe = self.sampled(backbone, sources, inverted)
        return decoded(backbone, Sampled(y[owner], nfe[owner.cpu()]))

    @torch.inference_mode()
    def sampled(
        self, backbone: Backbone, sources: Sources, inverted: Inversion
    ) -> tuple[Tensor, Tensor]:
        """The latents [B, C, h, w] at the end, and the evaluations [B] that they took."""
        nfe = torch.zeros(len(sources), dtype=torch.long)
        if inverted.trajectory is not None:
            return inverted.trajectory[-1], nfe
        samples, y = torch.arange(len(sources), device=inverted.x.device), inverted.x[0]
        source = backbone.encode_prompts(sources.source_prompts)
        for i, timestep in enumerate(inverted.timesteps):
            negative = inverted.negative[i]
            eps = guided_noise(backbone, y, timestep, source, negative, self.guidance)
            y = inverted.step(i, y, eps, samples)
            nfe += evaluations(self.guidance)
        return y, nfe
