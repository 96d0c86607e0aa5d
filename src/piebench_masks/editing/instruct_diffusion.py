"""InstructDiffusion (Geng et al., arXiv 2309.03895): edits by instruction, with a model of its own.

Sampled by ancestral Euler steps on k-diffusion's scale, x = x0 + sigma n. Knows no files but those
of its model.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Capability, Conditioning
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.editing.instructed import (
    Encoded,
    encoded,
    fitted,
    instructed_model,
    instructions,
)
from piebench_masks.editing.own_model import OwnModel
from piebench_masks.identity import NO_OUTPUT

NOISIEST = 999
"""The time step where sampling starts."""


@dataclass(frozen=True)
class InstructDiffusion(Editor):
    """InstructDiffusion as an editor. A sample without an instruction is edited by its target
    prompt.

    id: the folder of a pipeline like InstructPix2Pix's, or a hub name; rows: of the U-Net in one
    block, of which an edit takes three; guidance: by the instruction; image_guidance: by the
    source. Every edit has the same noise, drawn with ``seed``. It runs on the device of the run's
    model, and adds to that model's counts. Raises BenchmarkError where there is no such model.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ()
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts", "instruction")

    id: str = field(metadata=NO_OUTPUT)
    revision: str | None = field(default=None, metadata=NO_OUTPUT)
    variant: str | None = None
    cache_dir: str | None = field(default=None, metadata=NO_OUTPUT)
    rows: int = field(default=8, metadata=NO_OUTPUT)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    steps: int = 50
    guidance: float = 5.0
    image_guidance: float = 1.25
    seed: int = 1234

    def identity(self) -> str:
        """What stands for the model in artifact keys: its commit, or its files' content."""
        return self.model.identity()

    @cached_property
    def model(self) -> OwnModel:
        return instructed_model(
            "editor.instruct_diffusion",
            self.id,
            "a folder of InstructDiffusion that diffusers converted from its checkpoint",
            revision=self.revision,
            variant=self.variant,
            cache_dir=self.cache_dir,
            rows=self.rows,
            dtype=self.dtype,
        )

    def invert(self, backbone: Backbone, sources: Sources) -> Encoded:
        return encoded(self.model, backbone, sources)

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Encoded,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        _, model = self.model.loaded(backbone)
        return decoded(model, self.sample(backbone, sources, inverted, masks, owner))

    @torch.inference_mode()
    def sample(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Encoded,
        masks: Tensor,
        owner: Tensor,
    ) -> Sampled:
        """After every step but the last, the latents outside the mask are the noised source's.

        Masks are brought to the size of the model's own latents.
        """
        pipeline, model = self.model.loaded(backbone)
        text = model.encode_prompts(instructions(sources))[owner]
        empty_prompt = model.encode_prompts([""])[[0] * len(owner)]
        texts = Conditioning.cat([text, empty_prompt, text])
        x0 = inverted.posterior.mean[owner]
        image = x0 / pipeline.vae.config.scaling_factor
        images = torch.cat([image, image, torch.zeros_like(image)])
        latent_masks = fitted(masks, x0)
        # Every edit gets the draws that it would get alone.
        generator = torch.Generator().manual_seed(self.seed)
        noise, *draws = torch.randn(self.steps, *x0.shape[1:], generator=generator).to(x0.device)

        timesteps = torch.linspace(NOISIEST, 0, self.steps).tolist()
        levels = [sigma(model, timestep) for timestep in timesteps] + [0.0]
        x = (levels[0] * noise).expand_as(x0)
        for i, (level, following) in enumerate(pairwise(levels)):
            z = torch.cat([torch.cat([x] * 3) / math.hypot(level, 1), images], dim=1)
            t = torch.full((len(z),), timesteps[i])
            eps = model.predict_noise(z, t, texts).unflatten(0, (3, len(x)))
            denoised = combined(x - level * eps, self.guidance, self.image_guidance)
            down, up = ancestral(level, following)
            x = x + (x - denoised) / level * (down - level)
            if following > 0:
                x = torch.where(latent_masks, x + up * draws[i], x0 + following * noise)
        return Sampled(x, torch.full((len(owner),), 3 * self.steps))


def sigma(backbone: Backbone, timestep: float) -> float:
    """noise / signal at a time step; between two of them its logarithm is linear."""
    low, share = math.floor(timestep), timestep % 1
    ends = (backbone.level(low), backbone.level(math.ceil(timestep)))
    below, above = (math.log(level.noise / level.signal) for level in ends)
    return math.exp((1 - share) * below + share * above)


def combined(denoised: Tensor, guidance: float, image_guidance: float) -> Tensor:
    """Guidance by text and by picture: [N, C, h, w].

    denoised: [3, N, C, h, w], with both, without text, and without picture.
    """
    both, no_text, no_image = denoised
    toward_text, toward_image = guidance * (both - no_text), image_guidance * (both - no_image)
    return (no_text + no_image) / 2 + toward_text + toward_image


def ancestral(level: float, following: float) -> tuple[float, float]:
    """Where a deterministic step from ``level`` leads, and the noise that is added to reach
    ``following`` (k-diffusion's ancestral step, eta 1).
    """
    up = min(following, following * math.sqrt(level**2 - following**2) / level)
    return math.sqrt(following**2 - up**2), up
