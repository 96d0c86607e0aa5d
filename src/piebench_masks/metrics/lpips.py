"""Learned perceptual distance of an edit to its source (Zhang et al., CVPR 2018; methods.md, 5).

The network is the lpips package's; images are scaled to [-1, 1] AFTER masking. Knows no store.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal
from warnings import catch_warnings, filterwarnings

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from piebench_masks.batching import Blocks
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import NO_OUTPUT, files_identity
from piebench_masks.metrics.case import CaseTensors, EditCase, Known, score_parts
from piebench_masks.metrics.column import SUFFIXES, Column
from piebench_masks.weights import loading

IMAGENET = {
    "squeeze": "torchvision squeezenet1_1-b8a52dc0",
    "alex": "torchvision alexnet-owt-7be5be79",
    "vgg": "torchvision vgg16-397923af",
}
"""The weights that torchvision downloads, by the name of their file."""
NAMES = {"squeeze": "SqueezeNet 1.1", "alex": "AlexNet", "vgg": "VGG-16"}
HEADS = "lpips v0.1"
"""The published linear heads, as the package holds them."""


@dataclass(frozen=True)
class Lpips:
    """LPIPS in float32, by default with a SqueezeNet 1.1 backbone, as in PIE-Bench's evaluator.

    name: prefix of the columns (``lpips`` for the published networks, anything else for others).
    net: the backbone's architecture. backbone: safetensors file of its feature layers under
    torchvision's names; None downloads torchvision's ImageNet weights. weighted: use the published
    linear heads, which belong to ImageNet features; without them every layer counts the same.
    Loading raises WeightsError.
    """

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("image", "mask")
    name: str = "lpips"
    _: KW_ONLY
    net: Literal["squeeze", "alex", "vgg"] = "squeeze"
    backbone: Path | str | None = field(default=None, metadata=NO_OUTPUT)
    weighted: bool = True
    device: str | torch.device = field(default="cpu", metadata=NO_OUTPUT)
    rows: int = field(default=8, metadata=NO_OUTPUT)

    def __post_init__(self) -> None:
        if self.net not in NAMES:
            raise BenchmarkError(f"Lpips.net is {self.net!r}: choose one of {', '.join(NAMES)}")

    @property
    def columns(self) -> Mapping[str, Column]:
        published = self.name == "lpips"
        column = Column(
            f"LPIPS{'' if self.net == 'squeeze' else f' {self.net}'}" if published else self.name,
            "down",
            1e3,
            role="background",
            meaning="Perceptual difference from the source"
            if published
            else "Perceptual difference from the source by a network of the data set's own, not "
            "comparable with LPIPS,",
            bounds=(0, 1),
        )
        return {f"{self.name}{suffix}": column.on(part) for part, suffix in SUFFIXES.items()}

    def identity(self) -> dict[str, Any]:
        """What the network is made of: the file's content, or the name of what is downloaded."""
        weights = {"heads": HEADS} if self.weighted else {}
        if self.backbone is None:
            return {"backbone": IMAGENET[self.net]} | weights
        path = Path(self.backbone)
        with self._loading():
            return {"backbone": files_identity(path.parent, [path])} | weights

    def load(self) -> None:
        """Load the network: WeightsError."""
        _ = self.network

    @cached_property
    def network(self) -> Any:
        """The package's ``LPIPS`` on the device."""
        from lpips import LPIPS  # importing it takes seconds, which a cached run need not wait

        with self._loading():
            with catch_warnings():
                # The package calls torchvision by an argument that torchvision has renamed.
                filterwarnings("ignore", module="torchvision")
                network = LPIPS(
                    net=self.net,
                    lpips=self.weighted,
                    pnet_rand=self.backbone is not None,
                    verbose=False,
                )
            if self.backbone is not None:
                load_features(network, load_file(self.backbone))
        return network.eval().requires_grad_(False).to(self.device)

    def _loading(self) -> Any:
        downloads = "torchvision's ImageNet weights, in the torch hub cache or online"
        return loading(
            f"The {NAMES[self.net]} backbone of '{self.name}'",
            where=str(self.backbone or downloads),
            remedy="connect once so that torchvision can download them, or give `backbone` a "
            f"safetensors file of the features of torchvision's {NAMES[self.net]}",
        )

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.rows)

    @cached_property
    def _known(self) -> Known:
        return Known()

    @torch.inference_mode()
    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Distance of ``edited`` uint8 [V, H, W, 3] to the source; its features are taken once."""

        def scoring(tensors: CaseTensors) -> Callable[[Tensor, Tensor], Tensor]:
            source, images, masks, _ = tensors
            reference = self._features(source.expand(len(masks), -1, -1, -1), masks)

            def distances(image: Tensor, part: Tensor) -> Tensor:
                total = torch.zeros(len(image), device=images.device)
                for layer, features in enumerate(self._features(images[image], masks[part])):
                    difference = (features - reference[layer][part]) ** 2
                    if self.weighted:
                        difference = self.network.lins[layer](difference)
                    total += difference.sum(dim=1).mean(dim=(1, 2))
                return total

            return distances

        device, known = torch.device(self.device), self._known
        return score_parts(
            self.name, case, edited, device, scoring, blocks=self._blocks, known=known
        )

    def _features(self, images: Tensor, masks: Tensor) -> list[Tensor]:
        """Unit-length features of all layers for uint8 [B, H, W, 3] under bool [B, H, W]."""
        from lpips import normalize_tensor

        pixels = images.movedim(-1, 1) / 255 * masks[:, None]
        layers = self.network.net(self.network.scaling_layer(2 * pixels - 1))
        return [normalize_tensor(layer) for layer in layers]


def load_features(model: Any, state: Mapping[str, Tensor]) -> None:
    """Put torchvision's ``features.N.*`` tensors into the slices of an ``lpips.LPIPS``: all."""
    layers = {name.removeprefix("features."): value.float() for name, value in state.items()}
    for piece in model.net.children():
        numbers = {number for number, _ in piece.named_children()}
        piece.load_state_dict(
            {name: value for name, value in layers.items() if name.split(".")[0] in numbers}
        )
