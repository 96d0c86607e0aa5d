"""Masks that no model is needed for: what every method has to beat, and the best a grid allows.

Their maps hold shares of a cell in [0, 1] and are cut at one half.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.masks.binarize import ABOVE
from piebench_masks.masks.method import MapError, MapMethod, Record


def full(record: Record) -> Tensor:
    """Edit everywhere."""
    return torch.ones(record.map_size, record.map_size)


def empty(record: Record) -> Tensor:
    """Edit nowhere."""
    return torch.zeros(record.map_size, record.map_size)


def centre(record: Record) -> Tensor:
    """The box in the middle, of half the picture's side."""
    soft_map = empty(record)
    inside = slice(record.map_size // 4, record.map_size - record.map_size // 4)
    soft_map[inside, inside] = 1.0
    return soft_map


def random(record: Record) -> Tensor:
    """As many cells as the annotated mask covers, drawn with the sample's seed."""
    cells = torch.zeros(record.map_size**2)
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(record.seed))
    cells[order[: round(_annotation(record).float().mean().item() * len(cells))]] = 1.0
    return cells.view(record.map_size, record.map_size)


def oracle(record: Record) -> Tensor:
    """The annotated mask on the map's grid: the share of each cell that it covers."""
    return F.adaptive_avg_pool2d(_annotation(record)[None].float(), record.map_size)[0]


def _annotation(record: Record) -> Tensor:
    if record.annotation is None:
        raise MapError(
            "the sample has no annotated mask, which the baselines `random` and `oracle` are made "
            "of: leave them out of mask= for this data set"
        )
    return record.annotation


def _baseline(
    soft_map: Callable[[Record], Tensor], reads: Literal["annotation", "nothing"]
) -> MapMethod:
    return MapMethod(
        name=soft_map.__name__,
        reads=reads,
        conditions=(),
        soft_map=soft_map,
        binarizer=ABOVE,
        threshold=0.5,
        sweep=(0.5, 0.5, 1),
    )


BASELINES = (
    _baseline(full, "nothing"),
    _baseline(empty, "nothing"),
    _baseline(centre, "nothing"),
    _baseline(random, "annotation"),
    _baseline(oracle, "annotation"),
)
