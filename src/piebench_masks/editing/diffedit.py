"""DiffEdit (Couairon et al., arXiv 2210.11427): masked denoising of an inverted source.

Takes any mask; the paper's is the map method of the same name. Knows nothing of files.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import Inversion, ddim


@dataclass(frozen=True)
class DiffEdit(Editor):
    """DDIM inversion up to the encoding ratio ``strength``, then sampling under the mask.

    compat: reference does as diffusers' pipeline does. It starts from a draw of the VAE's
    posterior. Outside the mask it puts the source at the level before the step, not after it, so
    that the last step leaves noise there.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ()
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    steps: int = 50
    strength: float = 0.8
    guidance: float = 7.5
    compat: Compat = "exact"
    seed: int = 8128

    @torch.inference_mode()
    def invert(self, backbone: Backbone, sources: Sources) -> Inversion:
        x0 = sources.encoded.mean
        if self.compat == "reference":
            generator = torch.Generator().manual_seed(self.seed)
            draw = torch.randn(x0.shape[1:], generator=generator).to(x0.device)
            x0 = x0 + sources.encoded.std * draw
        source = backbone.encode_prompts(sources.source_prompts)
        return ddim(
            backbone,
            x0,
            source,
            steps=self.steps,
            guidance=self.guidance,
            strength=self.strength,
        )

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Inversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        return decoded(backbone, self.sample(backbone, sources, inverted, masks, owner))

    @torch.inference_mode()
    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Inversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        target = backbone.encode_prompts(sources.target_prompts)[owner]
        y = inverted.x[0][owner]
        for i, timestep in enumerate(inverted.timesteps):
            t = torch.full((len(y),), timestep)
            eps = backbone.predict_noise(y, t, target)
            if self.guidance != 1:
                eps_negative = backbone.predict_noise(y, t, inverted.negative[i][owner])
                eps = eps_negative + self.guidance * (eps - eps_negative)
            source_latents = inverted.x[i if self.compat == "reference" else i + 1][owner]
            y = torch.where(masks[:, None], inverted.step(i, y, eps, owner), source_latents)
        calls = len(inverted.timesteps) * (1 if self.guidance == 1 else 2)
        return Sampled(y, torch.full((len(y),), calls))
