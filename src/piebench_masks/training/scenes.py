"""Random scenes to train on: images, and where each object and the background lie.

Training draws from TRAINING_SEEDS only; the evaluation's seeds begin after them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from piebench_masks.data.shapes.grammar import Scene, sample_scene
from piebench_masks.data.shapes.render import IMAGE_SIZE, render

TRAINING_SEEDS = range(2**32)


@dataclass(frozen=True)
class Pool:
    """images: uint8 [N,3,64,64]; regions: float32 [N,4,16,16], the shares of a cell that the first
    object, the second, the background and everything (constant one) cover."""

    scenes: Sequence[Scene]
    images: Tensor
    regions: Tensor


def draw_pool(count: int, first_seed: int = 0, cells: int = 16) -> Pool:
    """Draw ``count`` training scenes, one for each seed from ``first_seed`` on."""
    seeds = TRAINING_SEEDS[first_seed : first_seed + count]
    return pool_of([sample_scene(np.random.default_rng(seed)) for seed in seeds], cells)


def pool_of(scenes: Sequence[Scene], cells: int = 16) -> Pool:
    """The scenes drawn."""
    count = len(scenes)
    images = torch.empty(count, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    regions = torch.ones(count, 4, cells, cells, dtype=torch.float16)
    for start in range(0, count, 1024):  # the full-size coverage of all scenes would not fit
        drawn = render(scenes[start : start + 1024])
        rows = slice(start, start + len(drawn.images))
        images[rows] = torch.from_numpy(drawn.images).permute(0, 3, 1, 2)
        coverage = torch.from_numpy(drawn.coverage)
        background = 1 - coverage.amax(dim=1, keepdim=True)
        shares = torch.cat([coverage, background], dim=1)
        regions[rows, :3] = torch.nn.functional.adaptive_avg_pool2d(shares, cells).half()
    return Pool(scenes, images, regions)


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1
