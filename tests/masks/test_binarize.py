"""From soft maps to masks."""

import pytest
import torch

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.masks import METHODS
from piebench_masks.masks.binarize import (
    above_ratio_of_mean,
    rescale,
    rescaled_above,
    to_latent_mask,
)

SIZE = (32, 32)


@pytest.fixture
def soft_map() -> torch.Tensor:
    return torch.rand(16, 16, generator=torch.Generator().manual_seed(0))


def test_rescaled_maps_stay_below_one(soft_map: torch.Tensor) -> None:
    assert rescale(soft_map).min() == 0
    assert not rescaled_above(soft_map, [1.0], SIZE, "exact").any()
    assert rescale(torch.full((16, 16), 0.3)).eq(0).all()


@pytest.mark.parametrize("name", METHODS)
def test_many_thresholds_at_once_are_the_same_as_one_by_one(
    soft_map: torch.Tensor, name: str
) -> None:
    method = METHODS[name]
    masks = method.masks(soft_map, method.thresholds, SIZE, "exact")
    assert masks.dtype == torch.bool
    for threshold, mask in zip(method.thresholds, masks, strict=True):
        assert torch.equal(mask, method.masks(soft_map, [threshold], SIZE, "exact")[0])


def test_ratio_of_a_positive_mean_is_the_same_in_both_ways(soft_map: torch.Tensor) -> None:
    ratios = [0.25, 0.5, 1.0, 1.7]
    exact, reference = (
        above_ratio_of_mean(soft_map, ratios, SIZE, compat) for compat in ("exact", "reference")
    )
    assert torch.equal(exact, reference)
    assert 0 < exact.float().mean() < 1


@pytest.mark.parametrize("ratio", [0.0, 1.0, 3.0])
def test_ratio_of_a_mean_that_is_not_positive(soft_map: torch.Tensor, ratio: float) -> None:
    negative, nothing = soft_map - 0.9, torch.zeros(16, 16)
    assert above_ratio_of_mean(negative, [ratio], SIZE, "reference").all()
    assert above_ratio_of_mean(nothing, [ratio], SIZE, "reference").all()
    assert not above_ratio_of_mean(negative, [ratio], SIZE, "exact").all()
    assert not above_ratio_of_mean(nothing, [ratio], SIZE, "exact").any()


@pytest.mark.parametrize(("compat", "shape"), [("exact", (1, 48, 64)), ("reference", (1, 64, 48))])
def test_reference_swaps_height_and_width(
    soft_map: torch.Tensor, compat: Compat, shape: tuple[int, ...]
) -> None:
    assert rescaled_above(soft_map, [0.5], (48, 64), compat).shape == shape


def test_latent_masks_take_the_nearest_pixel() -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, :32] = True
    assert torch.equal(to_latent_mask(mask, 16)[0, :, 0], torch.arange(16) < 8)
