"""Choices among boxes, by loops in float64."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from piebench_masks.regions.choice import best_sizes, final_choice, final_scores, weighted_union

LOSSES = st.lists(st.floats(-3, 3, width=32), min_size=6, max_size=6)


def union_in_loops(masks: np.ndarray, losses: list[float], temperature: float) -> np.ndarray:
    lowest = min(losses)
    weights = [math.exp(-(loss - lowest) / temperature) for loss in losses]
    total = np.zeros(masks.shape[1:])
    for weight, mask in zip(weights, masks, strict=True):
        for row in range(total.shape[0]):
            for column in range(total.shape[1]):
                total[row, column] += weight * mask[row, column]
    return total / total.max()


@given(LOSSES, st.sampled_from([0.01, 0.3, 10.0]), st.integers(0, 99))
def test_the_union_is_that_of_loops(losses: list[float], temperature: float, seed: int) -> None:
    masks = torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(seed)) > 0.6
    masks[:, 0, 0] = True
    found = weighted_union(masks, torch.tensor(losses), temperature)
    expected = union_in_loops(masks.numpy(), losses, temperature)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@given(LOSSES)
def test_the_best_size_of_every_anchor(losses: list[float]) -> None:
    found = best_sizes(torch.tensor(losses).view(2, 3))
    for anchor in range(2):
        own = losses[3 * anchor : 3 * anchor + 3]
        assert found[anchor] == own.index(min(own))


def test_a_low_temperature_leaves_the_best_box_alone() -> None:
    masks = torch.eye(3, dtype=torch.bool)[:, None].expand(3, 3, 3)
    found = weighted_union(masks, torch.tensor([0.3, 0.1, 0.2]), 1e-3)
    torch.testing.assert_close(found, masks[1].float())


def test_the_published_choice_is_among_three() -> None:
    text = torch.tensor([0.30, 0.29, 0.28, 0.27])
    image = torch.tensor([0.1, 0.2, 0.1, 0.9])
    assert final_scores(text, image).argmax() == 3
    assert final_choice(text, image) == 1
    assert final_choice(text[:2], image[:2]) == 1
    assert final_choice(text[:1], image[:1]) == 0
