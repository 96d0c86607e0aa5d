"""Trains the embedded miniature model and its scorers, phase by phase (conf/train_shapes.yaml)."""

from pathlib import Path

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="../conf", config_name="train_shapes")
def main(config: DictConfig) -> None:
    torch.set_num_threads(config.threads)
    for phase in config.phases:
        folder = Path(config[phase].folder)
        instantiate(config[phase], folder=folder, work=Path(config.work), device=config.device)


if __name__ == "__main__":
    main()
