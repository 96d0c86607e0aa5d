"""`clipseg`: where a picture shows words (CLIPSeg, Lüddecke and Ecker, arXiv 2112.10003)."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from piebench_masks.identity import NO_OUTPUT
from piebench_masks.masks.segmenter import TextSegmenter


@dataclass(frozen=True)
class ClipSeg(TextSegmenter):
    """The sigmoid of the network's logits, on their grid."""

    model: str = field(default="CIDAS/clipseg-rd64-refined", metadata=NO_OUTPUT)

    def classes(self) -> tuple[Any, Any]:
        from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

        return CLIPSegForImageSegmentation, CLIPSegProcessor

    def shares(self, output: Any) -> Tensor:
        logits: Tensor = output.logits
        return logits.sigmoid()
