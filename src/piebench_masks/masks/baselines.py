"""Masks that no model is needed for: what every method has to beat, and the best a grid allows.

Their maps hold shares of a cell in [0, 1] and are cut at one half.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.data.scene import Knows
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.record import MapError, Record


@dataclass(frozen=True)
class Baseline(MapMethod):
    """Cut at one half, in every table."""

    knows: ClassVar[Knows] = "nothing"
    sweep: tuple[float, float, int] = (0.5, 0.5, 1)
    binarizer: str = "above"


@dataclass(frozen=True)
class Full(Baseline):
    """Edit everywhere."""

    def __call__(self, record: Record) -> Tensor:
        return torch.ones(record.map_size, record.map_size)


@dataclass(frozen=True)
class Empty(Baseline):
    """Edit nowhere."""

    def __call__(self, record: Record) -> Tensor:
        return torch.zeros(record.map_size, record.map_size)


@dataclass(frozen=True)
class Centre(Baseline):
    """The box in the middle, of half the picture's side."""

    def __call__(self, record: Record) -> Tensor:
        soft_map = torch.zeros(record.map_size, record.map_size)
        box = slice(record.map_size // 4, record.map_size - record.map_size // 4)
        soft_map[box, box] = 1.0
        return soft_map


@dataclass(frozen=True)
class Random(Baseline):
    """As many cells as the annotated mask covers, drawn with the sample's seed."""

    knows: ClassVar[Knows] = "annotation"

    def __call__(self, record: Record) -> Tensor:
        cells = torch.zeros(record.map_size**2)
        order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(record.seed))
        cells[order[: round(_annotation(record).float().mean().item() * len(cells))]] = 1.0
        return cells.view(record.map_size, record.map_size)


@dataclass(frozen=True)
class Oracle(Baseline):
    """The annotated mask on the map's grid: the share of each cell that it covers."""

    knows: ClassVar[Knows] = "annotation"

    def __call__(self, record: Record) -> Tensor:
        return F.adaptive_avg_pool2d(_annotation(record)[None].float(), record.map_size)[0]


def _annotation(record: Record) -> Tensor:
    if record.scene.annotation is None:
        raise MapError(
            "the sample has no annotated mask, which the baselines `random` and `oracle` are made "
            "of: leave them out of mask= for this data set"
        )
    return record.scene.annotation


BASELINES: dict[str, MapMethod] = {
    "full": Full(),
    "empty": Empty(),
    "centre": Centre(),
    "random": Random(),
    "oracle": Oracle(),
}
