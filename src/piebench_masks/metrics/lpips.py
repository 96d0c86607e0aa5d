"""Learned perceptual distance of an edit to its source (Zhang et al., CVPR 2018; METHODS.md, 5).

The network is the lpips package's; images are scaled to [-1, 1] AFTER masking. Knows no store.
"""

from pathlib import Path
from warnings import catch_warnings, filterwarnings

import lpips as package
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from piebench_masks.batching import Blocks
from piebench_masks.metrics import loading
from piebench_masks.metrics.case import HEADLINE, PARTS, EditCase, score_parts
from piebench_masks.metrics.column import Column


class Lpips:
    """LPIPS with a SqueezeNet 1.1 backbone, in float32.

    name: prefix of the columns (``lpips`` for the published network, anything else for others).
    backbone: safetensors file of the feature layers under torchvision's names; None downloads
    torchvision's ImageNet weights. weighted: use the published linear heads, which belong to
    ImageNet features; without them every layer counts the same. Raises WeightsError.
    """

    def __init__(
        self,
        name: str = "lpips",
        *,
        backbone: Path | str | None = None,
        weighted: bool = True,
        device: str | torch.device = "cpu",
        rows: int = 8,
    ) -> None:
        self.name, self.device, self.blocks = name, torch.device(device), Blocks(rows)
        with loading(
            f"The SqueezeNet 1.1 backbone of '{name}'",
            where=str(
                backbone or "torchvision's ImageNet weights, in the torch hub cache or online"
            ),
            remedy="connect once so that torchvision can download them, or give `backbone` a "
            "safetensors file of torchvision's squeezenet1_1 features",
        ):
            with catch_warnings():
                # The package calls torchvision by an argument that torchvision has renamed.
                filterwarnings("ignore", module="torchvision")
                self.model = package.LPIPS(
                    net="squeeze", lpips=weighted, pnet_rand=backbone is not None, verbose=False
                )
            if backbone is not None:
                load_features(self.model, load_file(backbone))
        self.model.eval().requires_grad_(False).to(self.device)
        label = "LPIPS" if name == "lpips" else name
        self.columns = {
            f"{name}{suffix}": Column(f"{label}{where}", "down", 1e3, headline=suffix == HEADLINE)
            for suffix, where in PARTS.items()
        }

    @torch.inference_mode()
    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Distance of ``edited`` uint8 [V, H, W, 3] to the source; its features are taken once."""
        parts = case.parts()
        masks = torch.from_numpy(np.stack(list(parts.values()))).to(self.device)
        images = torch.from_numpy(edited).to(self.device)
        sources = torch.from_numpy(case.source).to(self.device).expand(len(parts), -1, -1, -1)
        reference = self._features(sources, masks)

        def distances(image: Tensor, part: Tensor) -> Tensor:
            """[rows] distances of the images with these indices on the parts with these indices."""
            total = torch.zeros(len(image), device=self.device)
            for layer, features in enumerate(self._features(images[image], masks[part])):
                difference = (features - reference[layer][part]) ** 2
                if self.model.lpips:
                    difference = self.model.lins[layer](difference)
                total += difference.sum(dim=1).mean(dim=(1, 2))
            return total

        return score_parts(self.name, distances, list(parts), len(edited), self.blocks)

    def _features(self, images: Tensor, masks: Tensor) -> list[Tensor]:
        """Unit-length features of all layers for uint8 [B, H, W, 3] under bool [B, H, W]."""
        masked = images.movedim(-1, 1) / 255 * masks[:, None]
        layers = self.model.net(self.model.scaling_layer(2 * masked - 1))
        return [package.normalize_tensor(layer) for layer in layers]


def load_features(model: package.LPIPS, state: dict[str, Tensor]) -> None:
    """Put torchvision's ``features.N.*`` tensors into the package's slices, every one of them."""
    layers = {name.removeprefix("features."): value.float() for name, value in state.items()}
    for piece in model.net.children():
        numbers = {number for number, _ in piece.named_children()}
        piece.load_state_dict(
            {name: value for name, value in layers.items() if name.split(".")[0] in numbers}
        )
