"""Likeness of an edit to its source by DINOv2 (Oquab et al., TMLR 2024). Chosen only on purpose."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.identity import NO_OUTPUT
from piebench_masks.metrics.case import CaseTensors, EditCase, Known, score_parts
from piebench_masks.metrics.column import SUFFIXES, Column
from piebench_masks.metrics.structure import Structure

STRUCTURE = Column(
    "DINOv2 structure", "down", 1e3, meaning="Difference in layout from the source (DINOv2)"
)
IDENTITY = Column("DINO-I", "up", 100, meaning="Likeness of content to the source (DINOv2)")


@dataclass(frozen=True, kw_only=True)
class DinoV2(Structure):
    """The structure distance with DINOv2's keys, and DINO-I, the cosine of its class tokens (Ruiz
    et al., DreamBooth, CVPR 2023), with pixels from 0 to 1, in float32.
    """

    columns: ClassVar[Mapping[str, Column]] = {
        f"{name}{suffix}": column.on(part, headline="whole")
        for name, column in {"dinov2_structure": STRUCTURE, "dino_i": IDENTITY}.items()
        for part, suffix in SUFFIXES.items()
    }
    model: str = field(default="facebook/dinov2-base", metadata=NO_OUTPUT)
    input_range: Literal["0..1", "0..255"] = "0..1"

    @cached_property
    def network(self) -> Any:
        """The transformers DINOv2 on the device."""
        from transformers import Dinov2Model

        return self._loaded(Dinov2Model)

    @cached_property
    def _known_tokens(self) -> Known:
        return Known()

    @torch.inference_mode()
    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Score ``edited`` uint8 [V, H, W, 3] against the source, on every part."""

        def scoring(tensors: CaseTensors) -> Callable[[Tensor, Tensor], Tensor]:
            source, images, masks, _ = tensors
            reference = self._blocks.map(
                lambda mask: self._class_token(source.expand(len(mask), -1, -1, -1), mask), masks
            )
            return lambda image, part: F.cosine_similarity(
                self._class_token(images[image], masks[part]), reference[part], dim=-1
            )

        device, known = torch.device(self.device), self._known_tokens
        return self._structure("dinov2_structure", case, edited) | score_parts(
            "dino_i", case, edited, device, scoring, blocks=self._blocks, known=known
        )

    def _class_token(self, images: Tensor, masks: Tensor) -> Tensor:
        token: Tensor = self._forward(self._pixels(images, masks)).last_hidden_state[:, 0]
        return token

    def _forward(self, pixels: Tensor) -> Any:
        return self.network(pixels)  # it always fits its positions to the picture
