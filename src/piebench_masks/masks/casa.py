"""`casa`: cross-attention smoothed over the graph of self-attention (LOCATEdit, arXiv 2503.21541;
from the formula).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from piebench_masks.masks.attention import OUTSIDE_MID, word_attention
from piebench_masks.masks.binarize import nearest_exact, rescale
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.postprocess import Graph
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class Casa(MapMethod):
    """(Lam + lam L)^-1 Lam m0 of the rescaled sum over the changed words' attention.

    L: the Laplacian of the finest self-attention made symmetric; Lam = diag(sigmoid(steepness (m0 -
    centre))^2); lam = 0 gives m0. draws: None for the run's ``num_repeat``.
    """

    threshold: float = 0.3
    lam: float = 0.78
    steepness: float = 2.61
    centre: float = 0.4858
    draws: int | None = None

    @property
    def needs(self) -> Needs:
        return Needs(
            conditions=("probe",),
            draws=self.draws,
            cross_attention=("map",),
            words="changed",
            self_attention=("finest",),
        )

    def __call__(self, record: Record) -> Tensor:
        """[g, g] of the finest grid."""
        probe = record.at("probe")
        words = word_attention(probe, record.map_size, places=OUTSIDE_MID).sum(dim=0)
        start = nearest_exact(words[None], max(probe.self_attention))[0]
        if start.min() == start.max():
            return torch.zeros_like(start)
        return Graph(self.lam, self.steepness, self.centre)(rescale(start), record)
