"""`attn_multi`: DAAM, cross-attention of every resolution (Tang et al., arXiv 2210.04885)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.masks.attention import OUTSIDE_MID, mean_over_words
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.record import Record, Recording


@dataclass(frozen=True)
class AttnMulti(MapMethod):
    """Attention to the changed words, mean over all heads of the layers on the way down and up,
    each brought to the latents' grid.

    draws: of the noise, None for the run's ``num_repeat``.
    """

    threshold: float = 0.4
    draws: int | None = None

    @property
    def needs(self) -> Needs:
        return Needs(
            conditions=("probe",),
            draws=self.draws,
            cross_attention=("every",),
            heads="each",
            words="changed",
        )

    def __call__(self, record: Record) -> Tensor:
        """[h, w]."""
        return mean_over_words(heat_maps(record.at("probe")))


def heat_maps(recording: Recording) -> Tensor:
    """Of every recorded word, attention of each head made as large as the latents (bicubic, without
    what that takes below zero), mean over draws, layers and heads: [W, h, w].
    """
    assert recording.latents is not None
    side = recording.latents.shape[-1]
    heads = [
        F.interpolate(draw[i], (side, side), mode="bicubic").clamp(min=0)
        for grid, arrays in recording.cross_attention.items()
        for i, layer in enumerate(recording.layers(grid))
        if layer.place in OUTSIDE_MID
        for draw in arrays
        if draw.shape[2]
    ]
    return torch.cat(heads).mean(dim=0) if heads else torch.zeros(0, side, side)
