"""`ledits`: where attention and the difference of noise predictions agree (LEDITS++, Brack et al.,
arXiv 2311.16711).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from piebench_masks.masks.attention import OUTSIDE_MID, word_attention
from piebench_masks.masks.binarize import nearest_exact
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.postprocess import blurred, gaussian
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class Ledits(MapMethod):
    """The lower of two ranks: of the changed words' blurred attention, and of |eps(target) -
    eps(source)| summed over channels.

    What reaches a threshold q is the intersection of LEDITS++'s two masks at their q-quantiles, for
    every q. draws: None for the run's ``num_repeat``.
    """

    threshold: float = 0.9
    binarizer: str = "reaches"
    draws: int | None = None

    @property
    def needs(self) -> Needs:
        attention = Needs(
            conditions=("probe",), draws=self.draws, cross_attention=("map",), words="changed"
        )
        return attention | Needs(conditions=("source", "target"), draws=self.draws, noise=True)

    def __call__(self, record: Record) -> Tensor:
        """[h, w]."""
        words = word_attention(record.at("probe"), record.map_size, places=OUTSIDE_MID)
        difference = record.at("target").noise - record.at("source").noise
        return agreement(words.sum(dim=0), difference.abs().sum(dim=1).mean(dim=0))


def smoothed(attention: Tensor) -> Tensor:
    """The attention to the words [g, g] under LEDITS++'s Gaussian."""
    return blurred(attention, gaussian(0.5**0.5, 1).to(attention.device))


def agreement(attention: Tensor, noise: Tensor) -> Tensor:
    """The lower of two ranks, of attention to the words [g, g], which is smoothed, and of the
    difference of predictions, summed over channels, [h, w]: [h, w]; zeros where one is constant.
    """
    attention = smoothed(attention)
    if attention.min() == attention.max() or noise.min() == noise.max():
        return torch.zeros_like(noise)  # all places would reach every quantile
    return torch.minimum(nearest_exact(rank(attention)[None], len(noise))[0], rank(noise))


def rank(values: Tensor) -> Tensor:
    """The share of the other places whose value is not larger, 0 to 1: float32, the same shape."""
    flat = values.flatten()
    below = torch.searchsorted(flat.sort().values, flat, right=True) - 1
    return (below.double() / (len(flat) - 1)).float().view_as(values)
