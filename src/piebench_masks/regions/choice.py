"""Which box is chosen, from what was painted under all of them. Knows tensors only."""

import torch
from torch import Tensor

CANDIDATES = 3
"""The published choice is among so many pictures, those that agree most with the text."""


def final_scores(text: Tensor, image: Tensor, weights: tuple[float, float] = (2.0, 1.0)) -> Tensor:
    """The published scores of P pictures (arXiv 2311.16432): [P].

    text, image: cosines with the text and with the source picture, [P], each a softmax over the
    pictures at temperature 1.
    """
    return weights[0] * text.softmax(dim=0) + weights[1] * image.softmax(dim=0)


def final_choice(text: Tensor, image: Tensor, weights: tuple[float, float] = (2.0, 1.0)) -> int:
    """The highest score among the three pictures that agree most with the text."""
    candidates = text.argsort(descending=True, stable=True)[:CANDIDATES].sort().values
    scores = final_scores(text, image, weights)[candidates]
    return int(candidates[scores.argmax()])


def best_sizes(losses: Tensor) -> Tensor:
    """The size with the lowest loss of every anchor, long [P], of losses [P, S]."""
    return losses.argmin(dim=-1)


def weighted_union(masks: Tensor, losses: Tensor, temperature: float) -> Tensor:
    """Masks bool [N, g, g] added up by softmax(-losses / temperature), its largest value 1: [g, g].

    losses: [N]. The lower the temperature, the more the best box alone.
    """
    weights = (-losses.double() / temperature).softmax(dim=0)
    union = torch.einsum("n,nhw->hw", weights, masks.double())
    return (union / union.max()).float()
