"""Which class loads which folder: one table, by the pipeline that the folder names.

Knows all kinds of models; must not know what they are used for.
"""

from pathlib import Path
from typing import Protocol

import torch

from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.diffusion.pipelines import INDEX, read_index
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError


class BackboneClass(Protocol):
    """One kind of model: what loads its folders, and what it says of them without loading."""

    def from_folder(
        self,
        folder: Path,
        *,
        variant: str | None,
        dtype: torch.dtype,
        vae_dtype: torch.dtype,
        device: torch.device,
        rows: int,
        vae_rows: int,
        map_size: int,
        compiled: bool,
        few_steps: bool,
    ) -> Backbone:
        """See `load_backbone`."""

    def describe(self, folder: Path, *, few_steps: bool) -> tuple[int, int, frozenset[Capability]]:
        """Sides of the model's images and latents, and what it provides, from its configs."""


BACKBONES: dict[str, BackboneClass] = dict.fromkeys(
    (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    ),
    StableDiffusion,
)
"""By ``_class_name`` of model_index.json. A module of one's own may add to it."""


def load_backbone(
    folder: Path,
    *,
    variant: str | None = None,
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    rows: int = 8,
    vae_rows: int = 2,
    map_size: int = 16,
    compiled: bool = False,
    few_steps: bool = True,
) -> Backbone:
    """Load a folder of any known kind. The VAE has its own precision: SDXL's overflows in float16.

    rows, vae_rows: of the network and of the VAE in one block; map_size: side of the attention
    layers that maps are read from; compiled: torch.compile the network's blocks; few_steps: whether
    the model was distilled to sample in a few steps, which no file says. Raises BenchmarkError.
    """
    return backbone_class(folder).from_folder(
        folder,
        variant=variant,
        dtype=dtype,
        vae_dtype=vae_dtype,
        device=torch.device(device),
        rows=rows,
        vae_rows=vae_rows,
        map_size=map_size,
        compiled=compiled,
        few_steps=few_steps,
    )


def backbone_class(folder: Path) -> BackboneClass:
    """What loads this folder. Raises BenchmarkError where nothing does."""
    name = str(read_index(folder).get("_class_name"))
    if name not in BACKBONES:
        raise BenchmarkError(
            f"{folder / INDEX} names {name}, and no backbone loads that: there are those for "
            f"{', '.join(BACKBONES)}; choose another model.id, or add a class of your own to "
            f"{__name__}.BACKBONES"
        )
    return BACKBONES[name]
