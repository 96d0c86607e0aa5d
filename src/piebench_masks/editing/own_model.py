"""A model that an editor brings along, beside the run's own: a pipeline of diffusers.

Knows no editor, and no files but those of a model.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.pipelines import load_pipeline
from piebench_masks.diffusion.source import UNUSED, resolve_model
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError
from piebench_masks.weights import loading, quiet, weights_folder


@dataclass(frozen=True)
class OwnModel:
    """A pipeline, loaded at first use on the device of a run's model.

    setting: where the user set it; id: a hub name, or a folder; example: what is named in errors;
    kinds: diffusers' class by name, and that of SDXL where there is one; channels: of the U-Net's
    input; ability: what a U-Net of so many does; evaluations: of the U-Net, that one step of an
    edit takes; rows: of the U-Net in one block; unet: the folder of one that takes the place of the
    pipeline's own.
    """

    setting: str
    id: str
    example: str
    kinds: tuple[str, ...]
    channels: int
    ability: str
    evaluations: int
    revision: str | None
    variant: str | None
    cache_dir: str | None
    rows: int
    dtype: str
    unet: str | None = None

    @property
    def edits_at_once(self) -> int:
        return max(1, self.rows // self.evaluations)

    def identity(self) -> str:
        """Its commit, or its files' content; that of a U-Net in the place of its own, too."""
        identity = self._source[1]
        return identity if self.unet is None else f"{identity}, U-Net {self._unet_source[1]}"

    def loaded(self, backbone: Backbone) -> tuple[Any, StableDiffusion]:
        """The pipeline and its networks, which add to the counts of the run's model.

        Raises BenchmarkError where there is no such model.
        """
        if backbone.device in self._models:
            return self._models[backbone.device]
        import diffusers

        folder, _ = self._source
        wanted = f"in {self.setting}.id {self.example}"
        is_xl = len(self.kinds) > 1 and (folder / "text_encoder_2").is_dir()
        parts: dict[str, Any] = {} if self.unet is None else {"unet": self._loaded_unet()}
        if not is_xl:
            parts |= {"safety_checker": None, "feature_extractor": None}
            parts |= {"requires_safety_checker": False}
        pipeline = load_pipeline(
            getattr(diffusers, self.kinds[is_xl]),
            folder,
            wanted,
            variant=self.variant,
            dtype=getattr(torch, self.dtype),
            vae_dtype=torch.float32,
            **parts,
        )
        if (channels := pipeline.unet.config.in_channels) != self.channels:
            raise BenchmarkError(
                f"{folder} does not {self.ability}: its U-Net takes {channels} channels, not "
                f"{self.channels}; give {wanted}"
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
            unused=UNUSED if self.unet is None else {*UNUSED, "unet"},
        )

    @cached_property
    def _unet_source(self) -> tuple[Path, str]:
        with self._loading_unet():
            return weights_folder(str(self.unet), revision=None, cache_dir=self.cache_dir)

    def _loaded_unet(self) -> Any:
        from diffusers import UNet2DConditionModel
        from diffusers.utils import logging as diffusers_logging

        folder, _ = self._unet_source
        with self._loading_unet(), quiet(diffusers_logging):
            return UNet2DConditionModel.from_pretrained(
                folder,
                torch_dtype=getattr(torch, self.dtype),
                use_safetensors=True,
                local_files_only=True,
            )

    def _loading_unet(self) -> Any:
        return loading(
            f"the U-Net of {self.setting}.unet",
            where=str(self.unet),
            remedy=f"set {self.setting}.unet to the folder of a U-Net that diffusers' "
            "save_pretrained wrote, or to null for the pipeline's own",
        )

    @cached_property
    def _models(self) -> dict[torch.device, tuple[Any, StableDiffusion]]:
        """The pipeline and its networks, by device."""
        return {}
