"""`saliency`: where DINO looks, whatever the edit is (Caron et al., arXiv 2104.14294)."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from piebench_masks.data.scene import Knows
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.record import Record
from piebench_masks.regions.saliency import Dino


@dataclass(frozen=True)
class Saliency(MapMethod):
    """For every patch the share of the class token's attention that goes to patches with no more
    of it than that patch: the anchors of `regions` are its largest values.
    """

    knows: ClassVar[Knows] = "nothing"
    forwards: ClassVar[int] = 1

    threshold: float = 0.65
    binarizer: str = "above"
    dino: Dino = field(default_factory=Dino)

    def load(self, device: torch.device) -> None:
        self.dino.network(device, "exact")

    def __call__(self, record: Record) -> Tensor:
        """[32, 32] with patches of 8 pixels, in (0, 1]."""
        return self.dino.saliency(record.scene.image.numpy(), record.device, "exact")
