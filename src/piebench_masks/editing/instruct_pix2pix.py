"""InstructPix2Pix (Brooks et al., arXiv 2211.09800): edits by instruction, with a model of its own.

Sampling is diffusers' own pipeline, into which masks are brought after every step. Knows no files
but those of its model.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.batching import Blocks
from piebench_masks.diffusion.backbone import Backbone, Capability, Posterior
from piebench_masks.diffusion.pipelines import load_pipeline
from piebench_masks.diffusion.source import resolve_model
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.editing.editor import Edited, Editor, Sampled, Sources, decoded
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import NO_OUTPUT

SETTING = "editor.instruct_pix2pix"
CHANNELS = 8
"""Of the U-Net's input: the latents and the source's."""


@dataclass(frozen=True)
class Encoded:
    """The sources as the model's own VAE sees them; no U-Net evaluations: nfe is 0, long [B]."""

    posterior: Posterior
    nfe: Tensor


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
        return self._source[1]

    def invert(self, backbone: Backbone, sources: Sources) -> Encoded:
        _, model = self._loaded(backbone)
        posterior = model.encode_images(sources.images)
        return Encoded(posterior, torch.zeros(len(posterior), dtype=torch.long))

    def edit(
        self,
        backbone: Backbone,
        sources: Sources,
        inverted: Encoded,
        masks: Tensor,
        owner: Tensor,
    ) -> Edited:
        _, model = self._loaded(backbone)
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
        pipeline, model = self._loaded(backbone)
        texts = zip(sources.instructions, sources.target_prompts, strict=True)
        text = model.encode_prompts(
            [instruction.strip() or target for instruction, target in texts]
        ).hidden
        empty_prompt = model.encode_prompts([""]).hidden
        x0 = inverted.posterior.mean
        latent_masks = F.interpolate(
            masks[:, None].float(), x0.shape[-2:], mode="nearest-exact"
        ).bool()

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

        latents = Blocks(self._edits_at_once).map(sample, x0[owner], text[owner], latent_masks)
        rows = 3 if pipeline.do_classifier_free_guidance else 1
        nfe = torch.full((len(owner),), rows * len(pipeline.scheduler.timesteps))
        backbone.counts["unet_rows"] += int(nfe.sum())
        return Sampled(latents, nfe)

    @property
    def _edits_at_once(self) -> int:
        return max(1, self.rows // 3)  # the pipeline evaluates three rows for every edit

    @cached_property
    def _source(self) -> tuple[Path, str]:
        return resolve_model(
            self.id,
            revision=self.revision,
            variant=self.variant,
            cache_dir=self.cache_dir,
            setting=SETTING,
        )

    @cached_property
    def _models(self) -> dict[torch.device, tuple[Any, StableDiffusion]]:
        """The pipeline and its networks, by device."""
        return {}

    def _loaded(self, backbone: Backbone) -> tuple[Any, StableDiffusion]:
        if backbone.device in self._models:
            return self._models[backbone.device]
        from diffusers import StableDiffusionInstructPix2PixPipeline

        folder, _ = self._source
        wanted = f"in {SETTING}.id timbrooks/instruct-pix2pix, or a folder of InstructPix2Pix"
        pipeline = load_pipeline(
            StableDiffusionInstructPix2PixPipeline,
            folder,
            wanted,
            variant=self.variant,
            dtype=getattr(torch, self.dtype),
            vae_dtype=torch.float32,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        if (channels := pipeline.unet.config.in_channels) != CHANNELS:
            raise BenchmarkError(
                f"{folder} is no InstructPix2Pix: its U-Net takes {channels} channels, not "
                f"{CHANNELS}; give {wanted}"
            )
        pipeline.set_progress_bar_config(disable=True)
        model = StableDiffusion(
            pipeline,
            device=backbone.device,
            rows=self._edits_at_once,
            vae_rows=self._edits_at_once,
            map_size=backbone.map_size,
            counts=backbone.counts,
        )
        self._models[backbone.device] = pipeline, model
        return pipeline, model
