"""`grounded_sam`: the boxes of a word, and what lies in them (Grounding DINO, arXiv 2303.05499, and
SAM 2, arXiv 2408.00714; together as in Grounded SAM, arXiv 2401.14159).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.identity import NO_OUTPUT
from piebench_masks.masks.segmenter import Segmenter
from piebench_masks.weights import frozen


@dataclass(frozen=True)
class GroundedSam(Segmenter):
    """The largest score of the boxes whose masks cover a pixel, at the picture's size.

    box_score: boxes with a lower score are left out; without any the map is 0. model: the detector;
    mask_model: what makes masks of boxes. Pictures go through one by one.
    """

    forwards: ClassVar[int] = 2

    threshold: float = 0.25
    box_score: float = 0.25
    model: str = field(default="IDEA-Research/grounding-dino-tiny", metadata=NO_OUTPUT)
    mask_model: str = field(default="facebook/sam2.1-hiera-small", metadata=NO_OUTPUT)

    def identity(self) -> Any:
        """Of the detector and of the model that makes masks."""
        return [super().identity(), self._folder(self.mask_model)[1]]

    def found(
        self, pictures: Sequence[NDArray[np.uint8]], words: Sequence[str], device: torch.device
    ) -> list[Tensor]:
        return [self._found(*one, device) for one in zip(pictures, words, strict=True)]

    def _found(self, picture: NDArray[np.uint8], words: str, device: torch.device) -> Tensor:
        boxes, scores = self.boxes(picture, words, device)
        if not len(boxes):
            return torch.zeros(picture.shape[:2])
        covered = self.covered(picture, boxes, device)
        return (scores[:, None, None] * covered).amax(dim=0)

    def boxes(
        self, picture: NDArray[np.uint8], words: str, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """What the detector finds: boxes [k, 4] (x0, y0, x1, y1), pixels within the picture, and
        their scores [k], on the CPU.
        """
        network, processor, *_ = self._networks(device)
        height, width = picture.shape[:2]
        inputs = processor(
            images=picture,
            text=[[words]],
            truncation=True,
            max_length=network.config.max_text_len,
            return_tensors="pt",
        ).to(device)
        (found,) = processor.post_process_grounded_object_detection(
            network(**inputs),
            inputs["input_ids"],
            threshold=self.box_score,
            target_sizes=[(height, width)],
        )
        boxes = found["boxes"].cpu()
        limits = torch.tensor([width, height, width, height], dtype=boxes.dtype)
        return boxes.clamp_min(0).minimum(limits), found["scores"].cpu()

    def covered(self, picture: NDArray[np.uint8], boxes: Tensor, device: torch.device) -> Tensor:
        """The mask of each box: bool [k, H, W]."""
        *_, network, processor = self._networks(device)
        inputs = processor(images=picture, input_boxes=[boxes.tolist()], return_tensors="pt").to(
            device
        )
        masks = network(**inputs, multimask_output=False).pred_masks.cpu()
        found: Tensor = processor.post_process_masks(masks, [picture.shape[:2]])[0]
        return found[:, 0]

    def _load(self, device: torch.device) -> tuple[object, ...]:
        from transformers import (
            GroundingDinoForObjectDetection,
            GroundingDinoProcessor,
            Sam2Model,
            Sam2Processor,
        )

        detector, segmenter = self._folder(self.model)[0], self._folder(self.mask_model)[0]
        boxes = (
            frozen(GroundingDinoForObjectDetection, detector, device),
            GroundingDinoProcessor.from_pretrained(detector, local_files_only=True),
        )
        with self._loading(self.mask_model):
            return (
                *boxes,
                frozen(Sam2Model, segmenter, device),
                Sam2Processor.from_pretrained(segmenter, local_files_only=True),
            )
