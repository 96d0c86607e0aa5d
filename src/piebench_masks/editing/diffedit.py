"""DiffEdit (Couairon et al., arXiv 2210.11427): masked denoising of an inverted source.

Takes any mask; the paper's is the map method of the same name. Knows nothing of files.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.editing.blending import sample_blended
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
            x0 = sources.encoded.draw(self.seed)
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

    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Inversion,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        target = backbone.encode_prompts(sources.target_concepts)
        outside = inverted.x[:-1] if self.compat == "reference" else inverted.x[1:]
        return sample_blended(
            backbone, inverted, outside, target, masks, owner, guidance=self.guidance
        )
