"""`sam3`: the instances of a concept (SAM 3: Segment Anything with Concepts, arXiv 2511.16719)."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from piebench_masks.identity import NO_OUTPUT
from piebench_masks.masks.segmenter import TextSegmenter


@dataclass(frozen=True)
class Sam3(TextSegmenter):
    """The largest product of an instance's score and its mask, on the masks' grid.

    The weights have their own licence, and their page asks for a request.
    """

    model: str = field(default="facebook/sam3", metadata=NO_OUTPUT)
    rows: int = field(default=1, metadata=NO_OUTPUT)

    def classes(self) -> tuple[Any, Any]:
        from transformers import Sam3Model, Sam3Processor

        return Sam3Model, Sam3Processor

    def shares(self, output: Any) -> Tensor:
        scores = output.pred_logits.sigmoid() * output.presence_logits.sigmoid()
        shares: Tensor = scores[..., None, None] * output.pred_masks.sigmoid()
        return shares.amax(dim=1)
