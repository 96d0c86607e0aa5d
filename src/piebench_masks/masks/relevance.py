"""`relevance`: the difference of noise predictions without its outliers (Watch Your Steps, Mirzaei
et al., arXiv 2308.08947; from the formula).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from piebench_masks.masks.binarize import rescale
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class Relevance(MapMethod):
    """|eps(target) - eps(source)| summed over channels, clipped at Q3 + reach (Q3 - Q1), rescaled.

    draws: of the noise, None for the run's ``num_repeat``.
    """

    binarizer: str = "above"
    reach: float = 1.5
    draws: int | None = None

    @property
    def needs(self) -> Needs:
        return Needs(conditions=("source", "target"), noise=True, draws=self.draws)

    def __call__(self, record: Record) -> Tensor:
        """[h, w]."""
        difference = record.at("target").noise - record.at("source").noise
        noise = difference.abs().sum(dim=1).mean(dim=0)
        quartiles = torch.tensor([0.25, 0.75])
        first, third = noise.flatten().quantile(quartiles, interpolation="midpoint")
        return rescale(noise.clamp(max=third + self.reach * (third - first)))
