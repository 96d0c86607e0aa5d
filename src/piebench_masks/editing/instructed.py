"""Models that edit by instruction: a U-Net that also sees the source, with VAE and text encoder.

What InstructPix2Pix and InstructDiffusion have in common; knows neither, and no files but those of
a model.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.pipelines import load_pipeline
from piebench_masks.diffusion.source import resolve_model
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.editing.editor import Sources
from piebench_masks.errors import BenchmarkError

CHANNELS = 8
"""Of the U-Net's input: the latents and the source's."""


@dataclass(frozen=True)
class Encoded:
    """The sources as the model's own VAE sees them; no U-Net evaluations: nfe is 0, long [B]."""

    posterior: Posterior
    nfe: Tensor


@dataclass(frozen=True)
class InstructedModel:
    """A pipeline of that kind, loaded at first use on the device of a run's model.

    setting: where the user set it; id: a hub name, or a folder; example: what is named in errors;
    rows: of the U-Net in one block, of which an edit takes three.
    """

    setting: str
    id: str
    example: str
    revision: str | None
    variant: str | None
    cache_dir: str | None
    rows: int
    dtype: str

    @property
    def edits_at_once(self) -> int:
        return max(1, self.rows // 3)

    def identity(self) -> str:
        """Its commit, or its files' content."""
        return self._source[1]

    def encode(self, backbone: Backbone, sources: Sources) -> Encoded:
        _, model = self.loaded(backbone)
        posterior = model.encode_images(sources.images)
        return Encoded(posterior, torch.zeros(len(posterior), dtype=torch.long))

    def loaded(self, backbone: Backbone) -> tuple[Any, StableDiffusion]:
        """The pipeline and its networks, which add to the counts of the run's model.

        Raises BenchmarkError where there is no such model.
        """
        if backbone.device in self._models:
            return self._models[backbone.device]
        from diffusers import StableDiffusionInstructPix2PixPipeline

        folder, _ = self._source
        wanted = f"in {self.setting}.id {self.example}"
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
                f"{folder} does not edit by instruction: its U-Net takes {channels} channels, not "
                f"{CHANNELS}; give {wanted}"
            )
        pipeline.set_progress_bar_config(disable=True)
        model = StableDiffusion(
            pipeline,
            device=backbone.device,
            rows=self.rows,
            vae_rows=self.edits_at_once,
            map_size=backbone.map_size,
            counts=backbone.counts,
        )
        self._models[backbone.device] = pipeline, model
        return pipeline, model

    @cached_property
    def _source(self) -> tuple[Path, str]:
        return resolve_model(
            self.id,
            revision=self.revision,
            variant=self.variant,
            cache_dir=self.cache_dir,
            setting=self.setting,
        )

    @cached_property
    def _models(self) -> dict[torch.device, tuple[Any, StableDiffusion]]:
        """The pipeline and its networks, by device."""
        return {}


def instructions(sources: Sources) -> list[str]:
    """What each edit is told: a sample without an instruction has its target prompt."""
    texts = zip(sources.instructions, sources.target_prompts, strict=True)
    return [instruction.strip() or target for instruction, target in texts]


def fitted(masks: Tensor, latents: Tensor) -> Tensor:
    """Masks bool [N, h, w] at the size of a model's own latents: [N, 1, h', w']."""
    size = (latents.shape[-2], latents.shape[-1])
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact").bool()
