"""`sam3`: the instances of a concept (SAM 3: Segment Anything with Concepts, arXiv 2511.16719)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.identity import NO_OUTPUT
from piebench_masks.masks.segmenter import Segmenter, frozen, tokenized


@dataclass(frozen=True)
class Sam3(Segmenter):
    """The largest product of an instance's score and its mask, on the masks' grid.

    The weights have their own licence, and their page asks for a request.
    """

    model: str = field(default="facebook/sam3", metadata=NO_OUTPUT)
    rows: int = field(default=1, metadata=NO_OUTPUT)

    def found(
        self, pictures: Sequence[NDArray[np.uint8]], words: Sequence[str], device: torch.device
    ) -> list[Tensor]:
        network, processor = self._networks(device)
        pixels = processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
        length = network.config.text_config.max_position_embeddings
        ids, attended = tokenized(processor, words, length)

        def shares(pixels: Tensor, ids: Tensor, attended: Tensor) -> Tensor:
            output = network(
                pixel_values=pixels.to(device),
                input_ids=ids.to(device),
                attention_mask=attended.to(device),
            )
            scores = output.pred_logits.sigmoid() * output.presence_logits.sigmoid()
            shares = scores[..., None, None] * output.pred_masks.sigmoid()
            return shares.amax(dim=1).cpu()

        return list(self._blocks.map(shares, pixels, ids, attended))

    def _load(self, device: torch.device) -> tuple[object, object]:
        from transformers import Sam3Model, Sam3Processor

        folder = self._folder(self.model)[0]
        processor = Sam3Processor.from_pretrained(folder, local_files_only=True)
        return frozen(Sam3Model, folder, device), processor
