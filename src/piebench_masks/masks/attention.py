"""What recorded cross-attention says of words: sums and means over draws, layers and words."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from piebench_masks.diffusion.attention import Place
from piebench_masks.masks.binarize import rescale
from piebench_masks.masks.postprocess import to_grid
from piebench_masks.masks.record import Record, Recording

OUTSIDE_MID: tuple[Place, ...] = ("down", "up")
"""The places of layers that LEDITS++, DAAM, LOCATEdit and InstDiffEdit look at."""


def word_attention(
    recording: Recording,
    grid: int,
    *,
    text: str = "own",
    places: Collection[str] = ("down", "mid", "up"),
) -> Tensor:
    """Attention to each recorded text position, mean over heads, draws and the layers of a grid
    that lie in ``places``: [W, grid, grid].
    """
    layers = [i for i, layer in enumerate(recording.layers(grid)) if layer.place in places]
    return recording.attention_to(text)[grid][:, layers].mean(dim=(0, 1))


def mean_over_words(attention: Tensor) -> Tensor:
    """[W, g, g] -> [g, g]; zeros of no words."""
    return attention.sum(dim=0) / max(len(attention), 1)


def weighted_attention(record: Record, weights: Sequence[float], side: int) -> Tensor:
    """The probe's attention to its changed words, rescaled at each grid and summed: [side, side].

    weights: of the model's map grid and of the finer ones that follow; those it lacks have none.
    """
    probe = record.at("probe")
    total = torch.zeros(side, side)
    grids = sorted(grid for grid in probe.cross_attention if grid >= record.map_size)
    for grid, weight in zip(grids, weights, strict=False):
        total += weight * rescale(to_grid(mean_over_words(word_attention(probe, grid)), side))
    return total
