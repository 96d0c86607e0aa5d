"""The miniature after a few steps of training, with its own vocabulary."""

from pathlib import Path

import pytest

from piebench_masks.training.unet import train_unet
from piebench_masks.training.vae import train_vae


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder after three steps of each phase."""
    folder, work = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("work")
    shared = {"device": "cpu", "steps": 3, "batch": 2, "learning_rate": 1e-3, "scenes": 8}
    train_vae(folder, work, kl=1e-5, noise=0.1, channels=(8, 8, 8), **shared)
    train_unet(folder, work, grounding=0.03, edits=8, silence=0.2, channels=(32, 32), **shared)
    return folder
