"""`clipseg`: where a picture shows words (CLIPSeg, Lüddecke and Ecker, arXiv 2112.10003)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.identity import NO_OUTPUT
from piebench_masks.masks.segmenter import Segmenter, frozen, tokenized


@dataclass(frozen=True)
class ClipSeg(Segmenter):
    """The sigmoid of the network's logits, on their grid."""

    model: str = field(default="CIDAS/clipseg-rd64-refined", metadata=NO_OUTPUT)

    def found(
        self, pictures: Sequence[NDArray[np.uint8]], words: Sequence[str], device: torch.device
    ) -> list[Tensor]:
        network, processor = self._networks(device)
        pixels = processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
        length = network.config.text_config.max_position_embeddings
        ids, attended = tokenized(processor, words, length)

        def shares(pixels: Tensor, ids: Tensor, attended: Tensor) -> Tensor:
            logits = network(
                pixel_values=pixels.to(device),
                input_ids=ids.to(device),
                attention_mask=attended.to(device),
            ).logits
            return logits.sigmoid().cpu()

        return list(self._blocks.map(shares, pixels, ids, attended))

    def _load(self, device: torch.device) -> tuple[object, object]:
        from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

        folder = self._folder(self.model)[0]
        processor = CLIPSegProcessor.from_pretrained(folder, local_files_only=True)
        return frozen(CLIPSegForImageSegmentation, folder, device), processor
