"""Blended Latent Diffusion (Avrahami et al., arXiv 2206.02779): the target is sampled from noise
under the mask, and blended with the noised source. Knows nothing of files.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.diffusion.ddpm import add_noise
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.editing.blending import sample_blended
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.inversion import Inversion, unshifted


@dataclass(frozen=True)
class BlendedLatentDiffusion(Editor):
    """Blended Latent Diffusion as an editor, without its optimisation of the decoder.

    skip: the share of the steps, the noisiest, that is left out. The source has noise of its own at
    every level, drawn with ``seed``. Only the target prompt has a part in the edit.
    compat: reference does as PnP Inversion's code does. It starts from noise alone, on a schedule
    one time step lower, and puts the source back at the level before the step, not after it, so
    that the last step leaves noise there.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ()
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts")

    steps: int = 50
    skip: float = 0.25
    guidance: float = 7.5
    compat: Compat = "exact"
    seed: int = 1234

    @torch.inference_mode()
    def invert(self, backbone: Backbone, sources: Sources) -> Inversion:
        """x: where an edit starts, and then what is put back after each step."""
        x0 = sources.encoded.mean
        start = int(self.skip * self.steps)
        published = self.compat == "reference"
        schedule = unshifted(backbone, self.steps) if published else backbone.levels(self.steps)
        levels = schedule[start:]
        count = len(levels) - 1
        # Every sample gets the draws that it would get alone.
        generator = torch.Generator().manual_seed(self.seed)
        first, *draws = torch.randn(count + 1, *x0.shape[1:], generator=generator).to(x0.device)
        if published:
            x = [first.expand_as(x0), *map(add_noise, [x0] * count, draws, levels)]
        else:
            noised = map(add_noise, [x0] * count, [first, *draws], levels)
            x = [*noised, x0]
        empty_prompt = backbone.encode_prompts([""] * len(x0))
        nfe = torch.zeros(len(x0), dtype=torch.long)
        return Inversion(levels, torch.stack(x), [empty_prompt] * count, nfe)

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
        target = backbone.encode_prompts(sources.target_prompts)
        return sample_blended(
            backbone, inverted, inverted.x[1:], target, masks, owner, guidance=self.guidance
        )
