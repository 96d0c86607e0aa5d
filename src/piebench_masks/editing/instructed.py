"""Models that edit by instruction: a U-Net that also sees the source, with VAE and text encoder.

What InstructPix2Pix and InstructDiffusion have in common; knows neither.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.editing.editor import Sources
from piebench_masks.editing.own_model import OwnModel

CHANNELS = 8
"""Of the U-Net's input: the latents and the source's."""
EVALUATIONS = 3
"""Of the U-Net in one step of an edit: with both conditions, without text, without picture."""


@dataclass(frozen=True)
class Encoded:
    """The sources as the model's own VAE sees them; no U-Net evaluations: nfe is 0, long [B]."""

    posterior: Posterior
    nfe: Tensor


def instructed_model(
    setting: str,
    id: str,
    example: str,
    *,
    revision: str | None,
    variant: str | None,
    cache_dir: str | None,
    rows: int,
    dtype: str,
) -> OwnModel:
    """A model of that kind: see `OwnModel`."""
    return OwnModel(
        setting,
        id,
        example,
        ("StableDiffusionInstructPix2PixPipeline",),
        CHANNELS,
        "edit by instruction",
        EVALUATIONS,
        revision,
        variant,
        cache_dir,
        rows,
        dtype,
    )


def encoded(model: OwnModel, backbone: Backbone, sources: Sources) -> Encoded:
    """The sources through the model's VAE."""
    posterior = model.loaded(backbone)[1].encode_images(sources.images)
    return Encoded(posterior, torch.zeros(len(posterior), dtype=torch.long))


def instructions(sources: Sources) -> list[str]:
    """What each edit is told: a sample without an instruction has its target prompt."""
    texts = zip(sources.instructions, sources.target_prompts, strict=True)
    return [instruction.strip() or target for instruction, target in texts]


def fitted(masks: Tensor, latents: Tensor) -> Tensor:
    """Masks bool [N, h, w] at the size of a model's own latents: [N, 1, h', w']."""
    size = (latents.shape[-2], latents.shape[-1])
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact").bool()
