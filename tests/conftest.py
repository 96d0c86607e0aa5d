"""A random model of SDXL-Turbo's structure, small enough for every test that needs a real one."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import settings

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.training.model import Denoiser, save_pipeline, write_tokenizers

settings.register_profile("no deadline", deadline=None)  # a shared core can be slow for a moment
settings.load_profile("no deadline")

WORDS = (
    "a",
    "big",
    "red",
    "blue",
    "circle",
    "square",
    "and",
    "on",
    "grass",
    "sand",
    "sketch",
    "of",
)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder: 64x64 pictures, 4x16x16 latents, 32 tokens, attention at 16x16."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    denoiser = Denoiser(write_tokenizers(folder, WORDS), channels=(32, 64))
    for weight in denoiser.parameters():
        if weight.ndim > 1:  # untrained, prompts and noise would hardly matter
            torch.nn.init.xavier_normal_(weight, gain=1.5)
    save_pipeline(folder, denoiser)
    AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        scaling_factor=0.13025,
        mid_block_add_attention=False,
    ).save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Backbone:
    return load_backbone(tiny_folder, rows=4)
