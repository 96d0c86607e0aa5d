"""`external`: somebody's own masks, hard or soft, as they are. Knows no file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import torch.nn.functional as F
from torch import Tensor

from piebench_masks.data.scene import Knows
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import NO_OUTPUT
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.record import MapError, Record


@dataclass(frozen=True)
class External(MapMethod):
    """``record.external``, a share in [0, 1] of every pixel. Hard masks are cut at one half.

    knows: what the masks were made from, as their author states it.
    """

    binarizer: str = "above"
    knows: Knows = field(kw_only=True, metadata=NO_OUTPUT)  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.knows not in get_args(Knows):
            raise BenchmarkError(
                f"External.knows is {self.knows!r}: state what the masks were made from, one of "
                f"{', '.join(get_args(Knows))}"
            )

    def __call__(self, record: Record) -> Tensor:
        """[g, g]: as the picture, squeezed to a square, and at most as large as the model's."""
        if record.external is None:
            raise MapError(f"no mask of sample {record.scene.id} was given to an external method")
        mask, max_side = record.external[None, None], record.scene.image.shape[0]
        side = min(max(mask.shape[-2:]), max_side)
        if mask.shape[-2:] == (side, side):
            return mask[0, 0]
        if min(mask.shape[-2:]) >= side:
            return F.interpolate(mask, (side, side), mode="area")[0, 0]
        return F.interpolate(mask, (side, side), mode="bilinear")[0, 0]


def external_methods(knows: Mapping[str, Knows], **settings: Any) -> dict[str, MapMethod]:
    """One method a name, each with what it was given; settings: of cutting, the same for all."""
    return {name: External(knows=given, **settings) for name, given in knows.items()}
