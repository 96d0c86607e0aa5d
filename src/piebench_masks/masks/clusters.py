"""`clusters`: attention to the changed words, mean over clusters of self-attention (LIME, Simsar et
al., arXiv 2312.09256; DiffSeg, Tian et al., arXiv 2308.12469).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.masks.attention import weighted_attention
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class Clusters(MapMethod):
    """Every place has the mean attention of its cluster: k-means of the rows of self-attention at
    the finest grid, each of length 1.

    clusters: how many; the first starts at the place of the most attention, each next one at the
    place that is farthest from all before. weights: as in ``weighted_attention``. draws: None for
    the run's ``num_repeat``.
    """

    clusters: int = 8
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
        words = weighted_attention(record, self.weights, side)
        if words.min() == words.max():
            return torch.zeros_like(words)
        labels = k_means(attention.mean(dim=0), words.flatten(), self.clusters)
        return cluster_means(words, labels)


def k_means(attention: Tensor, start: Tensor, clusters: int, most: int = 300) -> Tensor:
    """Labels [N] of the rows of ``attention`` [N, N]; start: [N], whose maximum is the first seed.

    Centres are plain means of unit rows, an empty cluster keeps its own; ties go to the first.
    """
    rows = F.normalize(attention, dim=1).double()
    seeds = [int(start.argmax())]
    nearest = _distances(rows, rows[seeds])[:, 0]
    while len(seeds) < min(clusters, len(rows)):
        seeds.append(int(nearest.argmax()))
        nearest = nearest.minimum(_distances(rows, rows[seeds[-1:]])[:, 0])
    centres, labels = rows[seeds], torch.full((len(rows),), -1)
    for _ in range(most):
        found = _distances(rows, centres).argmin(dim=1)
        if found.equal(labels):
            break
        labels = found
        members = F.one_hot(labels, len(seeds)).double()
        counts = members.sum(dim=0)[:, None]
        centres = torch.where(counts > 0, members.T @ rows / counts.clamp(min=1), centres)
    return labels


def cluster_means(soft_map: Tensor, labels: Tensor) -> Tensor:
    """The map [g, g] with every place's value replaced by the mean over its cluster."""
    members = F.one_hot(labels).to(soft_map.dtype)
    means = members.T @ soft_map.flatten() / members.sum(dim=0).clamp(min=1)
    return means[labels].view_as(soft_map)


def _distances(rows: Tensor, centres: Tensor) -> Tensor:
    """Squared: [N, K]."""
    return torch.stack([(rows - centre).square().sum(dim=1) for centre in centres], dim=1)
