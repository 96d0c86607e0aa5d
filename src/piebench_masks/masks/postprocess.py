"""What can be done to any method's map before it is cut, in the order of its ``post``.

mask.ours.post=[{_target_: piebench_masks.masks.postprocess.Propagate, power: 1}]
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.diffusion.recorder import Grid
from piebench_masks.masks.binarize import rescale
from piebench_masks.masks.needs import Condition, Needs
from piebench_masks.masks.record import MapError, Record


@dataclass(frozen=True)
class Rescale:
    """Min-max to [0, 1); a constant map becomes 0."""

    version: ClassVar[int] = 1

    def __call__(self, soft_map: Tensor, record: Record) -> Tensor:
        return rescale(soft_map)


@dataclass(frozen=True)
class Blur:
    """Gaussian of standard deviation ``sigma``, in cells, over ``size`` x ``size`` cells (odd).

    Pixels are mirrored at the edge, which is not repeated.
    """

    version: ClassVar[int] = 1

    sigma: float = 1.0
    size: int = 5

    def __call__(self, soft_map: Tensor, record: Record) -> Tensor:
        radius = self.size // 2
        if self.size != 2 * radius + 1 or self.sigma <= 0 or len(soft_map) <= radius:
            raise MapError(
                f"Blur(sigma={self.sigma}, size={self.size}) of a map {list(soft_map.shape)}: "
                "sigma must be positive, and size odd and below twice the map's side"
            )
        return blurred(soft_map, gaussian(self.sigma, radius))


@dataclass(frozen=True)
class Propagate:
    """S^power m: places take the map's values from the places that they attend to.

    S: self-attention of the ``condition``'s rows, mean over draws, layers and heads, whose rows sum
    to 1 (DiffSegmenter, 2309.02773, power 1; iSeg, 2409.03209, is transposed; GoCA has power 2).
    The map is brought to the grid of S, and is flattened by it: rescale it afterwards. A constant
    map stays as it is.
    """

    version: ClassVar[int] = 1

    power: int = 1
    transposed: bool = False
    grid: Grid = "finest"
    condition: Condition = "probe"

    @property
    def needs(self) -> Needs:
        return Needs(conditions=(self.condition,), self_attention=(self.grid,))

    def __call__(self, soft_map: Tensor, record: Record) -> Tensor:
        attention, m = _on_attention(soft_map, record, self.condition)
        if m.min() == m.max():
            return m
        return propagate(m, attention.T if self.transposed else attention, self.power)


@dataclass(frozen=True)
class Graph:
    """The map smoothed over the graph of self-attention (LOCATEdit, 2503.21541; formula only).

    m = (Lam + lam L)^-1 Lam m0, where Q = (S + S^T)/2, L = diag(Q 1) - Q is the graph's Laplacian
    and Lam = diag(sigmoid(steepness (m0 - centre))^2) trusts high values. Made for rescaled maps.
    S, grid, condition: as in ``Propagate``; lam = 0 gives m0.
    """

    version: ClassVar[int] = 1

    lam: float = 0.78
    steepness: float = 2.61
    centre: float = 0.4858
    grid: Grid = "finest"
    condition: Condition = "probe"

    @property
    def needs(self) -> Needs:
        return Needs(conditions=(self.condition,), self_attention=(self.grid,))

    def __call__(self, soft_map: Tensor, record: Record) -> Tensor:
        attention, m = _on_attention(soft_map, record, self.condition)
        if m.min() == m.max():
            return m
        trust = (self.steepness * (m - self.centre)).sigmoid().square()
        return smooth(m, trust, laplacian(attention), self.lam)


def gaussian(sigma: float, radius: int) -> Tensor:
    """exp(-x^2 / 2 sigma^2), normalised: [2 radius + 1]."""
    kernel = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()


def blurred(soft_map: Tensor, kernel: Tensor) -> Tensor:
    """The map under a kernel [2 radius + 1] both ways; mirrored at the edge, which stays single."""
    padded = F.pad(soft_map[None, None], (len(kernel) // 2,) * 4, mode="reflect")
    across = F.conv2d(padded, kernel[None, None, None])
    return F.conv2d(across, kernel[None, None, :, None])[0, 0]


def propagate(soft_map: Tensor, attention: Tensor, power: int) -> Tensor:
    """attention^power times the map: [g, g]; attention: [N, N], N = g * g."""
    values = soft_map.flatten()
    for _ in range(power):
        values = attention @ values
    return values.view_as(soft_map)


def laplacian(attention: Tensor) -> Tensor:
    """diag(Q 1) - Q of Q = (S + S^T)/2: [N, N] symmetric, whose rows sum to 0."""
    graph = (attention + attention.T) / 2
    return graph.sum(dim=1).diag() - graph


def smooth(soft_map: Tensor, trust: Tensor, laplacian: Tensor, lam: float) -> Tensor:
    """(Lam + lam L)^-1 Lam m: [g, g]; trust: Lam's diagonal as [g, g], positive."""
    weights = trust.flatten()
    system = weights.diag() + lam * laplacian
    return torch.linalg.solve(system, weights * soft_map.flatten()).view_as(soft_map)


def to_grid(soft_map: Tensor, side: int) -> Tensor:
    """[g, g] -> [side, side]: bilinear where that is finer, else the mean over each cell."""
    if side >= len(soft_map):
        grown = F.interpolate(soft_map[None, None], (side, side), mode="bilinear")
        return grown[0, 0]
    return F.adaptive_avg_pool2d(soft_map[None], side)[0]


def _on_attention(soft_map: Tensor, record: Record, condition: Condition) -> tuple[Tensor, Tensor]:
    """S [N, N], mean over draws, at the finest grid asked for, and the map on that grid."""
    by_grid = record.at(condition).self_attention
    side = max(by_grid)
    return by_grid[side].mean(dim=0), to_grid(soft_map, side)
