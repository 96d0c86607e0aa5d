"""InstructPix2Pix (Brooks et al., arXiv 2211.09800): edits by instruction, with a model of its own.

Sampling is diffusers' own pipeline, into which masks are brought after every step. Knows no files
but those of its model.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from piebench_masks.batching import Blocks
from piebench_masks.diffusion.backbone import Backbone, Capability
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


@dataclass(frozen=True)
class InstructPix2Pix(Editor):
    """InstructPix2Pix as an editor. A sample without an instruction is edited by its target prompt.

    id: a hub name, or the folder of a pipeline; rows: of the U-Net in one block, of which an edit
    takes three; guidance: by the instruction; image_guidance: by the source. Every edit starts from
    the same noise, drawn with ``seed``. It runs on the device of the run's model, and adds to that
    model's counts. Raises BenchmarkError where there is no such model.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Capability, ...] | None] = ()
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts", "instruction")

    id: str = field(default="timbrooks/instruct-pix2pix", metadata=NO_OUTPUT)
    revision: str | None = field(default=None, metadata=NO_OUTPUT)
    variant: str | None = None
    cache_dir: str | None = field(default=None, metadata=NO_OUTPUT)
    rows: int = field(default=8, metadata=NO_OUTPUT)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    steps: int = 100
    guidance: float = 7.5
    image_guidance: float = 1.5
    seed: int = 8128

    def identity(self) -> str:
        """What stands for the model in artifact keys: its commit, or its files' content."""
        return self.model.identity()

    @cached_property
    def model(self) -> OwnModel:
        return instructed_model(
            "editor.instruct_pix2pix",
            self.id,
            "timbrooks/instruct-pix2pix, or a folder of InstructPix2Pix",
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
        """Masks are brought to the size of the model's own latents."""
        pipeline, model = self.model.loaded(backbone)
        text = model.encode_prompts(instructions(sources)).hidden
        empty_prompt = model.encode_prompts([""]).hidden
        x0 = inverted.posterior.mean
        latent_masks = fitted(masks, x0)

        def sample(x0: Tensor, text: Tensor, mask: Tensor) -> Tensor:
            # Each has a generator of its own, and so the noise that it would get alone.
            generators = [torch.Generator().manual_seed(self.seed) for _ in x0]
            draws = [torch.randn(x0.shape[1:], generator=generator) for generator in generators]
            noise = torch.stack(draws).to(x0)

            def composite(_: Any, step: int, timestep: Tensor, state: dict[str, Tensor]) -> Any:
                following = pipeline.scheduler.timesteps[step + 1 : step + 2]
                if len(following):
                    source_latents = pipeline.scheduler.add_noise(x0, noise, following)
                    state["latents"] = torch.where(mask, state["latents"], source_latents.to(text))
                return state

            return pipeline(
                prompt_embeds=text,
                negative_prompt_embeds=empty_prompt.expand_as(text),
                image=x0 / pipeline.vae.config.scaling_factor,
                latents=noise.to(text),
                generator=generators,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                image_guidance_scale=self.image_guidance,
                callback_on_step_end=composite,
                output_type="latent",
            ).images.float()

        latents = Blocks(self.model.edits_at_once).map(sample, x0[owner], text[owner], latent_masks)
        rows = 3 if pipeline.do_classifier_free_guidance else 1
        nfe = torch.full((len(owner),), rows * len(pipeline.scheduler.timesteps))
        backbone.counts["unet_rows"] += int(nfe.sum())
        return Sampled(latents, nfe)
