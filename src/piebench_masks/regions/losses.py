"""What CLIP makes of a picture that was painted under a box: three losses (arXiv 2311.16432).

With the target's text, with the direction of the change, and with the source's layout. Knows
CLIP's network and pictures; must not know boxes or files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from piebench_masks.batching import Blocks
from piebench_masks.regions.views import resized, views

TEMPLATE = "a high quality image of {}."
"""What is painted, and what pictures are compared with; the source's text has no template."""


class Losses(NamedTuple):
    """Of P pictures, each [P]: with the text, with the direction of the change, of the layout."""

    text: Tensor
    direction: Tensor
    structure: Tensor

    def weighted(self, weights: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
        """Their weighted sum, [P]."""
        total: Tensor = sum(  # type: ignore[assignment]
            weight * loss for weight, loss in zip(weights, self, strict=True)
        )
        return total


@dataclass(frozen=True)
class Encoders:
    """open_clip's network of a vision transformer and its tokenizer; rows: of one block."""

    network: Any
    tokenizer: Any
    rows: int = 8

    @property
    def side(self) -> int:
        """Of the square pictures that the network sees."""
        size = self.network.visual.image_size
        return int(size if isinstance(size, int) else size[0])

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [N, D], not normalised, on the CPU."""
        tokens = self.tokenizer(list(texts))
        return self._blocks.map(
            lambda block: self.network.encode_text(block).cpu(), self._on(tokens)
        )

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """Embeddings [..., D] of [..., 3, side, side], not normalised, on the CPU."""
        rows = self._seen(pixels.flatten(0, -4))
        found = self._blocks.map(lambda block: self.network.encode_image(block).cpu(), rows)
        return found.unflatten(0, pixels.shape[:-3])

    @torch.no_grad()
    def self_similarity(self, pixels: Tensor) -> Tensor:
        """Of the T tokens that enter the last block, class token included: [N, T, T]."""
        inputs: list[Tensor] = []
        block = self.network.visual.transformer.resblocks[-1]
        handle = block.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))

        def similarity(block: Tensor) -> Tensor:
            inputs.clear()
            self.network.encode_image(block)
            return self_similarity(*inputs).cpu()

        try:
            return self._blocks.map(similarity, self._seen(pixels))
        finally:
            handle.remove()

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.rows)

    def _on(self, tensor: Tensor) -> Tensor:
        return tensor.to(next(self.network.parameters()).device)

    def _seen(self, pixels: Tensor) -> Tensor:
        """Less the mean of CLIP's pictures, and divided by their standard deviation."""
        settings = self.network.visual.preprocess_cfg
        mean, std = (torch.tensor(settings[name])[:, None, None] for name in ("mean", "std"))
        return self._on((pixels - mean) / std)


def self_similarity(tokens: Tensor) -> Tensor:
    """Cosines [N, T, T] of tokens [N, T, D]; the product of two lengths is at least 1e-8."""
    length = tokens.norm(dim=-1)
    products = (length[:, :, None] * length[:, None]).clamp_min(1e-8)
    return tokens @ tokens.mT / products


class Text(NamedTuple):
    """Embeddings [D] of the target in the template, and of the source."""

    target: Tensor
    source: Tensor


def encode_texts(encoders: Encoders, source: str, target: str, template: str = TEMPLATE) -> Text:
    """template: {} stands for the target."""
    embeddings = encoders.texts([template.replace("{}", target), source])
    return Text(*embeddings)


def text_views(after: Tensor, side: int, generator: Generator, *, antialias: bool) -> Tensor:
    """Views for the text, of floats [P, 3, H, H]: [P, 16, 3, side, side]."""
    torch.randint(1, (1,), generator=generator)  # as published, one template of one is chosen
    return torch.stack([views(image, side, generator, antialias=antialias) for image in after])


def direction_views(
    before: Tensor, after: Tensor, side: int, generator: Generator, *, antialias: bool
) -> Tensor:
    """Views of sources [P, 3, h, h] and of pictures [P, 3, H, H]: [P, 2, 16, 3, side, side].

    They are drawn independently.
    """
    torch.randint(1, (1,), generator=generator)
    pairs = [
        torch.stack([views(image, side, generator, antialias=antialias) for image in pair])
        for pair in zip(before, after, strict=True)
    ]
    return torch.stack(pairs)


def losses(
    encoders: Encoders,
    before: Tensor,
    after: Tensor,
    text: Text,
    generator: Generator,
    *,
    antialias: bool,
    layout: Callable[[Tensor], Tensor] | None = None,
) -> Losses:
    """Of pictures [P, 3, H, H], each painted from a source [P, 3, h, h], of floats from 0 to 1.

    The lower, the better. generator: of the views; layout: tokens' self-similarity [P, T, T] of
    pictures, None: that of CLIP's. The published code has painted pictures from 0 to 255, and
    resizes without antialias.
    """
    side = encoders.side

    def clip_layout(images: Tensor) -> Tensor:
        return encoders.self_similarity(resized(images, side, antialias=antialias))

    seen = text_views(after, side, generator, antialias=antialias)
    agreement = F.cosine_similarity(encoders.images(seen), text.target, dim=-1)
    pairs = direction_views(before, after, side, generator, antialias=antialias)
    change = encoders.images(pairs).diff(dim=1).squeeze(1)
    towards = F.cosine_similarity(change, text.target - text.source, dim=-1)
    layouts = [(layout or clip_layout)(images) for images in (before, after)]
    structure = (layouts[1] - layouts[0]).square().mean(dim=(1, 2))
    return Losses(1 - agreement.mean(dim=1), 1 - towards.mean(dim=1), structure)
