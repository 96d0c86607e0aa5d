"""Where a self-supervised vision transformer looks: DINO (Caron et al., arXiv 2104.14294).

The attention of its class token, and its patches' features. Knows no boxes, and no files but those
of its network.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.identity import NO_OUTPUT
from piebench_masks.weights import frozen, loading, quiet, sought, weights_folder

IMAGE_SIZE = 256
"""Side of the picture that the published transformer sees."""
OFFSET = 0.1
"""DINO adds it to the side of the grid, and passes the scale that results on to the sampling of
positions (compat=reference)."""


class Features(NamedTuple):
    """tokens: of one picture, class token first, behind the last normalisation, [1 + N, D].
    attention: the class token's to the N patches in the last block, of each head, [heads, N].
    """

    tokens: Tensor
    attention: Tensor


@dataclass(frozen=True)
class Dino:
    """A transformers ViT: a hub name or a folder. Loading raises WeightsError.

    image_size: side of the picture that it sees, in pixels.
    """

    model: str = field(default="facebook/dino-vitb8", metadata=NO_OUTPUT)
    revision: str | None = field(default=None, metadata=NO_OUTPUT)
    cache_dir: str | None = field(default=None, metadata=NO_OUTPUT)
    image_size: int = IMAGE_SIZE

    def identity(self) -> str:
        """Contents of a folder's files, a hub network's name and commit."""
        with self._loading():
            return self._folder()[1]

    def network(self, device: torch.device, compat: Compat) -> Any:
        """With the positions of pictures of ``image_size``; loaded at first use."""
        if (device, compat) not in self._loaded:
            from transformers import ViTModel
            from transformers.utils import logging

            with self._loading(), quiet(logging):
                folder, _ = self._folder()
                network = frozen(ViTModel, folder, device, add_pooling_layer=False)
                fit_positions(network, compat, self.image_size)
            self._loaded[device, compat] = network
        return self._loaded[device, compat]

    @torch.no_grad()
    def features(self, image: NDArray[np.uint8], device: torch.device, compat: Compat) -> Features:
        """Of a picture uint8 [H, W, 3], its middle where it is no square; on the CPU."""
        found = features(self.network(device, compat), square(image, self.image_size))
        return Features(*(part.cpu() for part in found))

    def saliency(self, image: NDArray[np.uint8], device: torch.device, compat: Compat) -> Tensor:
        """Of a picture uint8 [H, W, 3]: float32 [g, g], [32, 32] with patches of 8 pixels."""
        return saliency(self.features(image, device, compat).attention)

    def _folder(self) -> Any:
        return weights_folder(self.model, revision=self.revision, cache_dir=self.cache_dir)

    def _loading(self) -> Any:
        return loading(
            "The DINO model of the saliency",
            where=sought(self.model, self.revision, self.cache_dir),
            remedy="connect once so that transformers can download it, or give `model` a folder "
            "made by save_pretrained",
        )

    @cached_property
    def _loaded(self) -> dict[tuple[torch.device, Compat], Any]:
        return {}


def square(image: NDArray[np.uint8], size: int = IMAGE_SIZE) -> Tensor:
    """The middle of a picture uint8 [H, W, 3] at another size: uint8 [size, size, 3].

    Bicubic, in Pillow; what is cut off is rounded as torchvision does.
    """
    picture = Image.fromarray(image)
    shorter = min(picture.size)
    width, height = (int(size * side / shorter) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in picture.size)
    middle = picture.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(middle))


def interpolated_positions(positions: Tensor, grid: int, compat: Compat) -> Tensor:
    """Position embeddings [1, 1 + n * n, D] for a grid of another side: [1, 1 + grid * grid, D].

    Bicubic. reference: sampled at the scale (grid + 0.1) / n; exact: at the scale grid / n.
    """
    class_position, patches = positions[:, :1], positions[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    if side == grid:
        return positions
    planes = patches.unflatten(1, (side, side)).movedim(-1, 1)
    offset = OFFSET if compat == "reference" else 0
    planes = F.interpolate(
        planes, scale_factor=(grid + offset) / side, mode="bicubic", recompute_scale_factor=False
    )
    return torch.cat([class_position, planes.flatten(2).mT], dim=1)


def fit_positions(network: Any, compat: Compat, image_size: int = IMAGE_SIZE) -> None:
    """Give transformers' ViTModel the positions of pictures of that side, in place."""
    embeddings = network.embeddings
    grid = image_size // embeddings.patch_size
    positions = interpolated_positions(embeddings.position_embeddings.data, grid, compat)
    embeddings.position_embeddings = torch.nn.Parameter(positions, requires_grad=False)


def features(network: Any, image: Tensor) -> Features:
    """What transformers' ViTModel, with positions fitted to uint8 [H, H, 3], sees, in [0, 1].

    There is no normalisation by mean and standard deviation, as published.
    """
    pixels = image.to(network.device).movedim(-1, 0)[None] / 255
    query, key = _last(network, ".q_proj", ".query"), _last(network, ".k_proj", ".key")
    outputs: dict[Any, Tensor] = {}

    def keep(module: Any, arguments: Any, output: Tensor) -> None:
        outputs[module] = output[0].unflatten(-1, (network.config.num_attention_heads, -1))

    handles = [module.register_forward_hook(keep) for module in (query, key)]
    try:
        tokens = network(pixels, interpolate_pos_encoding=True).last_hidden_state[0]
    finally:
        for handle in handles:
            handle.remove()
    queries, keys = outputs[query], outputs[key]  # [1 + N, heads, d]
    logits = torch.einsum("hd,nhd->hn", queries[0], keys) / keys.shape[-1] ** 0.5
    return Features(tokens, logits.softmax(dim=-1)[:, 1:])


def _last(network: Any, *endings: str) -> Any:
    """The last block's projection: its name differs between transformers versions."""
    return [module for name, module in network.named_modules() if name.endswith(endings)][-1]


def saliency(attention: Tensor) -> Tensor:
    """The share of attention that goes to patches with no more than a patch's own: [g, g].

    attention: of the class token, [heads, g * g]. Values are in (0, 1] and ordered as the heads'
    mean; the largest is 1.
    """
    mean = attention.mean(dim=0)
    ascending, order = mean.sort(stable=True)
    shares = torch.empty_like(mean)
    shares[order] = (ascending / ascending.sum()).cumsum(dim=0)
    side = round(len(mean) ** 0.5)
    return shares.view(side, side)
