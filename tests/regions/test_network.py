"""The published region network."""

import pytest
import torch

from piebench_masks.regions.network import RegionNetwork, gumbel_noise

SIDE = 32


@pytest.fixture
def network() -> RegionNetwork:
    torch.manual_seed(0)
    return RegionNetwork(width=16, largest=8)


def test_the_choice_is_the_largest_sum_and_its_gradient_that_of_the_softmax(
    network: RegionNetwork,
) -> None:
    points = torch.tensor([[16, 12], [3, 30]])
    logits = torch.tensor([[0.0, 1.0, 0.5], [2.0, 0.0, 0.0]], requires_grad=True)
    gumbel = gumbel_noise((2, 3), torch.Generator().manual_seed(1))
    choice = network.choose(points, logits, gumbel, SIDE)
    best = (logits + gumbel).argmax(dim=-1)
    assert choice.onehot.argmax(dim=-1).equal(best)
    assert set(choice.onehot.flatten().tolist()) == {0.0, 1.0}
    assert choice.half_size.tolist() == [network.half_sizes[i] for i in best]
    choice.half_size.sum().backward()
    soft = (logits + gumbel).softmax(dim=-1)
    sizes = torch.tensor(network.half_sizes, dtype=torch.float32)
    (expected,) = torch.autograd.grad((soft @ sizes).sum(), logits)
    torch.testing.assert_close(logits.grad, expected)


def test_an_anchor_sees_entries_that_follow_each_other(network: RegionNetwork) -> None:
    regions = torch.randn(3, 2, 12, 8, 8, generator=torch.Generator().manual_seed(2))
    found = network(regions)
    entries = regions.flatten(0, 1)
    for anchor in range(2):
        own = entries[3 * anchor : 3 * anchor + 3].flatten(0, 1)[None]
        torch.testing.assert_close(found[anchor], network.layers(own)[0].log_softmax(dim=-1))


def test_regions_are_read_from_the_first_cells(network: RegionNetwork) -> None:
    """Boxes are in cells, and are divided by 8 once more."""
    feature_map = torch.zeros(12, SIDE, SIDE)
    feature_map[:, 6:, :] = feature_map[:, :, 6:] = 1
    points = torch.tensor([[16, 16], [30, 30]])
    assert not network.region_features(feature_map, points).any()


def test_noise_is_gumbels(network: RegionNetwork) -> None:
    drawn = gumbel_noise((20_000,), torch.Generator().manual_seed(3)).double()
    assert abs(drawn.mean().item() - 0.57722) < 0.03
    assert abs(drawn.var().item() - torch.pi**2 / 6) < 0.06
