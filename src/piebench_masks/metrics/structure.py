"""Structure distance: DINO key self-similarity (Tumanyan et al., CVPR 2022; methods.md, section 5).

Mean squared difference of the cosine similarities between the keys of the last block. Knows no
store.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.batching import Blocks
from piebench_masks.identity import NO_OUTPUT, files_identity
from piebench_masks.metrics.case import CaseTensors, EditCase, Known, score_parts
from piebench_masks.metrics.column import SUFFIXES, Column
from piebench_masks.weights import loading

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
COLUMN = Column(
    "Structure distance", "down", 1e3, meaning="Difference in layout from the source (DINO)"
)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Structure distance with DINO ViT-B/8, in float32.

    model: hub id (at ``revision``) or folder of a transformers ViT. input_range: PIE-Bench's
    official evaluator feeds values of 0..255 into the ImageNet normalisation, which expects 0..1;
    its published figures need ``0..255``. Loading raises WeightsError.
    """

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("image", "mask")
    columns: ClassVar[Mapping[str, Column]] = {
        f"structure_distance{suffix}": COLUMN.on(part, headline="whole")
        for part, suffix in SUFFIXES.items()
    }
    model: str = field(default="facebook/dino-vitb8", metadata=NO_OUTPUT)
    revision: str = field(default="main", metadata=NO_OUTPUT)
    input_range: Literal["0..1", "0..255"] = "0..255"
    device: str | torch.device = field(default="cpu", metadata=NO_OUTPUT)
    rows: int = field(default=2, metadata=NO_OUTPUT)

    def identity(self) -> dict[str, str]:
        """Contents of the files that a folder's model is read from; a hub model's name."""
        folder = Path(self.model)
        if not folder.is_dir():
            return {"model": self.model, "revision": self.revision}
        files = [*folder.glob("config.json"), *folder.glob("*.safetensors*")]
        with self._loading():
            return {"model": files_identity(folder, files)}

    def load(self) -> None:
        """Load the network: WeightsError."""
        _ = self.network

    @cached_property
    def network(self) -> Any:
        """The transformers ViT on the device."""
        from transformers import ViTModel  # takes seconds, which a cached run need not wait

        return self._loaded(ViTModel, add_pooling_layer=False)

    def _loaded(self, kind: Any, **settings: Any) -> Any:
        with self._loading():
            network = kind.from_pretrained(
                self.model,
                revision=self.revision,
                dtype=torch.float32,
                use_safetensors=True,
                **settings,
            )
        return network.eval().requires_grad_(False).to(self.device)

    def _loading(self) -> Any:
        return loading(
            "The DINO model of the structure distance",
            where=f"{self.model}, as a folder or on the Hugging Face hub (and in its cache)",
            remedy="connect once so that transformers can download it, or give `model` a folder "
            "made by save_pretrained",
        )

    @cached_property
    def _keys(self) -> Any:
        """The last block's projection: its name differs between transformers versions."""
        return [
            module
            for name, module in self.network.named_modules()
            if name.endswith((".k_proj", ".key"))
        ][-1]

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.rows)

    @cached_property
    def _known(self) -> Known:
        return Known()

    @torch.inference_mode()
    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Distance of ``edited`` uint8 [V, H, W, 3] to the source; one pass for the source."""
        return self._structure("structure_distance", case, edited)

    def _structure(self, name: str, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        def scoring(tensors: CaseTensors) -> Callable[[Tensor, Tensor], Tensor]:
            source, images, masks, _ = tensors
            reference = self._blocks.map(
                lambda mask: self._self_similarity(source.expand(len(mask), -1, -1, -1), mask),
                masks,
            )

            def distances(image: Tensor, part: Tensor) -> Tensor:
                similarity = self._self_similarity(images[image], masks[part])
                return ((similarity - reference[part]) ** 2).mean(dim=(1, 2))

            return distances

        device, known = torch.device(self.device), self._known
        return score_parts(name, case, edited, device, scoring, blocks=self._blocks, known=known)

    def _pixels(self, images: Tensor, masks: Tensor) -> Tensor:
        """What the network sees of uint8 [B, H, W, 3] under bool [B, H, W]: [B, 3, h, w]."""
        from torchvision.transforms.v2.functional import normalize, resize

        divisor = {"0..1": 255, "0..255": 1}[self.input_range]
        pixels = images.movedim(-1, 1) / divisor * masks[:, None]
        return normalize(resize(pixels, [224], max_size=480), IMAGENET_MEAN, IMAGENET_STD)

    def _self_similarity(self, images: Tensor, masks: Tensor) -> Tensor:
        """Cosine similarity [B, T, T] of all T tokens' keys (class token included)."""
        outputs: list[Tensor] = []
        handle = self._keys.register_forward_hook(lambda module, inputs, keys: outputs.append(keys))
        try:
            self._forward(self._pixels(images, masks))
        finally:
            handle.remove()
        keys = F.normalize(outputs[0], dim=-1)
        return keys @ keys.mT

    def _forward(self, pixels: Tensor) -> Any:
        return self.network(pixels, interpolate_pos_encoding=True)
