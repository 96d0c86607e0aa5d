"""Structure distance: DINO key self-similarity (Tumanyan et al., CVPR 2022; METHODS.md, section 5).

Mean squared difference of the cosine similarities between the keys of the last block. Knows no
store.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import normalize, resize
from transformers import ViTModel

from piebench_masks.batching import Blocks
from piebench_masks.metrics import loading
from piebench_masks.metrics.case import PARTS, EditCase, score_parts
from piebench_masks.metrics.column import Column

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Structure:
    """Structure distance with DINO ViT-B/8, in float32.

    model: hub id or folder of a transformers ViT. input_range: PIE-Bench's official evaluator
    feeds values of 0..255 into the ImageNet normalisation, which expects 0..1; its published
    figures need ``0..255``. Raises WeightsError.
    """

    def __init__(
        self,
        *,
        model: str = "facebook/dino-vitb8",
        input_range: Literal["0..1", "0..255"] = "0..255",
        device: str | torch.device = "cpu",
        rows: int = 2,
    ) -> None:
        self.device, self.blocks = torch.device(device), Blocks(rows)
        self.divisor = {"0..1": 255, "0..255": 1}[input_range]
        with loading(
            "The DINO model of the structure distance",
            where=f"{model}, as a folder or on the Hugging Face hub (and in its cache)",
            remedy="connect once so that transformers can download it, or give `model` a folder "
            "made by save_pretrained",
        ):
            self.model = ViTModel.from_pretrained(
                model, dtype=torch.float32, add_pooling_layer=False, use_safetensors=True
            )
        self.model.eval().requires_grad_(False).to(self.device)
        # The projection's name differs between transformers versions; its place does not.
        self.key = [
            module
            for name, module in self.model.named_modules()
            if name.endswith((".k_proj", ".key"))
        ][-1]
        self.columns = {
            f"structure_distance{suffix}": Column(
                f"Structure distance{where}", "down", 1e3, headline=suffix == ""
            )
            for suffix, where in PARTS.items()
        }

    @torch.inference_mode()
    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Distance of ``edited`` uint8 [V, H, W, 3] to the source; one pass for the source."""
        parts = case.parts()
        masks = torch.from_numpy(np.stack(list(parts.values()))).to(self.device)
        images = torch.from_numpy(edited).to(self.device)
        source = torch.from_numpy(case.source).to(self.device)
        reference = self.blocks.map(
            lambda mask: self._self_similarity(source.expand(len(mask), -1, -1, -1), mask),
            masks,
        )

        def distances(image: Tensor, part: Tensor) -> Tensor:
            """[rows] distances of the images with these indices on the parts with these indices."""
            similarity = self._self_similarity(images[image], masks[part])
            return ((similarity - reference[part]) ** 2).mean(dim=(1, 2))

        return score_parts("structure_distance", distances, list(parts), len(edited), self.blocks)

    def _self_similarity(self, images: Tensor, masks: Tensor) -> Tensor:
        """Cosine similarity [B, T, T] of all T tokens' keys (class token included)."""
        pixels = images.movedim(-1, 1) / self.divisor * masks[:, None]
        pixels = normalize(resize(pixels, [224], max_size=480), IMAGENET_MEAN, IMAGENET_STD)
        found: list[Tensor] = []
        handle = self.key.register_forward_hook(lambda module, given, keys: found.append(keys))
        try:
            self.model(pixels, interpolate_pos_encoding=True)
        finally:
            handle.remove()
        keys = F.normalize(found[0], dim=-1)
        return keys @ keys.mT
