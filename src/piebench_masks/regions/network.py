"""The network that chooses the size of the box around every anchor (compat=reference).

Published as learnable (Lin et al., arXiv 2311.16432); no gradient ever reaches it, so that it stays
as initialised and sizes are draws that depend little on the picture. Knows no files.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from piebench_masks.regions.boxes import corners, half_sizes

CHANNELS, POOLED, SCALE = 12, 8, 1 / 8
"""Channels of the features, side of a pooled region, and the scale of its box. Boxes are given in
cells, so that the scale reads every region from the first cells of the grid."""


class Choice(NamedTuple):
    """Of P anchors and S sizes. onehot: the choice, straight-through, [P, S]; half_size: [P];
    boxes: (x1, y1, x2, y2) in cells, [P, 4].
    """

    onehot: Tensor
    half_size: Tensor
    boxes: Tensor


class RegionNetwork(nn.Module):
    """Log-probabilities of the half sizes 4, 6, ..., ``largest`` of boxes, torch's initialisation.

    width: of the features.
    """

    def __init__(self, width: int, largest: int) -> None:
        super().__init__()
        self.half_sizes = half_sizes(largest)
        sizes = len(self.half_sizes)
        self.conv = nn.Conv2d(width, CHANNELS, 1)
        self.layers = nn.Sequential(
            nn.Conv2d(CHANNELS * sizes, 8, 1),
            nn.ReLU(),
            nn.Conv2d(8, 4, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * POOLED**2, 4),
            nn.ReLU(),
            nn.Linear(4, sizes),
        )

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights whose names are as published: ``conv.weight``, ``0.weight``, ..."""
        names = {name: name if name.startswith("conv.") else f"layers.{name}" for name in weights}
        self.load_state_dict({names[name]: value for name, value in weights.items()})

    def feature_map(self, tokens: Tensor) -> Tensor:
        """[12, g, g] of one picture's tokens, class token first, [1 + g * g, D]."""
        side = round((len(tokens) - 1) ** 0.5)
        features: Tensor = self.conv(tokens[1:].T.unflatten(1, (side, side)))
        return features

    def regions(self, points: Tensor, side: int) -> Tensor:
        """The boxes of every size around points [P, 2], in cells: float32 [S, P, 4]."""
        half_size = torch.tensor(self.half_sizes, device=points.device)[:, None]
        return corners(points, half_size, side, "reference").float()

    def region_features(self, feature_map: Tensor, points: Tensor) -> Tensor:
        """Features under every box (RoIAlign, He et al., arXiv 1703.06870): [S, P, 12, 8, 8]."""
        from torchvision.ops import roi_align  # takes seconds

        boxes = self.regions(points, feature_map.shape[-1])
        found: Tensor = roi_align(
            feature_map[None], [boxes.flatten(0, 1)], POOLED, SCALE, sampling_ratio=-1
        )
        return found.unflatten(0, boxes.shape[:2])

    def forward(self, region_features: Tensor) -> Tensor:
        """Log-probabilities [P, S].

        Features are reshaped and not permuted, as published: the input of an anchor is S entries
        that follow each other in a list by size, then anchor.
        """
        sizes, anchors = region_features.shape[:2]
        stacked = region_features.reshape(anchors, sizes * CHANNELS, POOLED, POOLED)
        log_probabilities: Tensor = self.layers(stacked).log_softmax(dim=-1)
        return log_probabilities

    def choose(
        self, points: Tensor, log_probabilities: Tensor, gumbel: Tensor, side: int
    ) -> Choice:
        """The size with the largest sum of log-probability and Gumbel noise, both [P, S].

        Straight-through (Jang et al., arXiv 1611.01144): gradients are those of the softmax.
        """
        soft = (log_probabilities + gumbel).softmax(dim=-1)
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
        onehot = hard - soft.detach() + soft  # in this order the value is hard, without rounding
        half_size = onehot @ torch.tensor(self.half_sizes, dtype=soft.dtype, device=soft.device)
        return Choice(onehot, half_size, corners(points, half_size, side, "reference"))


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Gumbel(0, 1), float32 on the CPU.

    Of uniform draws, which are the same on every CPU; torch's ``exponential_`` is not.
    """
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64).clamp_min(2.0**-60)
    return (-(-uniform.log()).log()).float()
