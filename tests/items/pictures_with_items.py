"""Pictures with items, and quick settings of their fits."""

from collections.abc import Sequence

import torch

from piebench_masks.items.fit import Picture
from piebench_masks.items.fitted import FitSettings
from piebench_masks.items.partition import Partition

SIDE = 64
QUICK = FitSettings(
    tokens=2,
    embedding_steps=4,
    unet_steps=4,
    embedding_learning_rate=1e-2,
    unet_learning_rate=1e-3,
    accumulation=2,
)


def picture(seed: int, names: Sequence[str] = ("left", "right", "below")) -> Picture:
    """Noise, with items that share it: two beside each other, and one below."""
    labels = torch.zeros(SIDE, SIDE, dtype=torch.long)
    labels[:, SIDE // 2 :] = 1
    if len(names) > 2:
        labels[3 * SIDE // 4 :] = 2
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    return Picture(image, Partition.from_labels(labels, names))
