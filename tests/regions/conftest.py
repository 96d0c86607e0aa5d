"""Tiny networks, and a picture."""

from pathlib import Path

import pytest
import torch
from tiny_regions import save_clip, save_dino
from torch import Tensor

from piebench_masks.metrics.clip import Clip
from piebench_masks.regions.losses import Encoders


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dino(tmp_path_factory.mktemp("dino") / "dino")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return Clip(model=save_clip(tmp_path_factory.mktemp("clip") / "clip"), pretrained=None)


@pytest.fixture(scope="session")
def encoders(clip: Clip) -> Encoders:
    return Encoders(clip.network, clip.tokenizer, rows=4)


@pytest.fixture
def picture() -> Tensor:
    """uint8 [64, 64, 3]."""
    generator = torch.Generator().manual_seed(5)
    small = torch.randint(256, (8, 8, 3), generator=generator, dtype=torch.uint8)
    return small.repeat_interleave(8, dim=0).repeat_interleave(8, dim=1)
