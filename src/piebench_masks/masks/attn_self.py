"""`attn_self`: cross-attention of two resolutions, carried along self-attention (DiffSegmenter,
arXiv 2309.02773; iSeg, arXiv 2409.03209).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from piebench_masks.masks.attention import weighted_attention
from piebench_masks.masks.binarize import rescale
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.postprocess import propagate
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class AttnSelf(MapMethod):
    """S^power m0, rescaled: m0 is the changed words' attention of several grids
    (``weighted_attention``), S the self-attention of the finest, whose rows sum to 1.

    DiffSegmenter has power 1, GoCA 2; iSeg is transposed. draws: None for the run's ``num_repeat``.
    """

    threshold: float = 0.4
    power: int = 1
    transposed: bool = False
    weights: tuple[float, ...] = (0.7, 0.3)
    draws: int | None = None

    @property
    def needs(self) -> Needs:
        return Needs(
            conditions=("probe",),
            draws=self.draws,
            cross_attention=("every",),
            words="changed",
            self_attention=("finest",),
        )

    def __call__(self, record: Record) -> Tensor:
        """[g, g] of the finest grid."""
        ((side, attention),) = record.at("probe").self_attention.items()
        start = weighted_attention(record, self.weights, side)
        if start.min() == start.max():  # propagated, it would be rounding errors
            return torch.zeros_like(start)
        mean = attention.mean(dim=0)
        return rescale(propagate(start, mean.T if self.transposed else mean, self.power))
