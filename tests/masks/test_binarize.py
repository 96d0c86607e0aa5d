"""From soft maps to masks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.masks import METHODS
from piebench_masks.masks.binarize import (
    ABOVE,
    ABOVE_QUANTILE,
    ABOVE_RATIO_OF_MAX,
    ABOVE_RATIO_OF_MEAN,
    BINARIZERS,
    OTSU,
    RESCALED_ABOVE,
    Binarizer,
    nearest_exact,
    rescale,
    upsample,
)

SIZE = (32, 32)
EIGHTHS = st.integers(-16, 16).map(lambda n: n / 8)
"""Values and thresholds that tie."""
VALUES = EIGHTHS | st.floats(-1e3, 1e3, width=32).filter(lambda v: v == 0 or abs(v) > 1e-20)
MAPS = arrays("float32", array_shapes(min_dims=2, max_dims=2, max_side=6), elements=VALUES)


@pytest.fixture
def soft_map() -> torch.Tensor:
    return torch.rand(16, 16, generator=torch.Generator().manual_seed(0))


def formula(
    binarizer: Binarizer, soft_map: Tensor, thresholds: list[float], compat: Compat
) -> Tensor:
    """methods.md's, pixel for pixel and without levels."""
    values = torch.tensor(thresholds, dtype=torch.float32)[:, None, None]
    m = upsample(rescale(soft_map) if binarizer is RESCALED_ABOVE else soft_map, SIZE, compat)
    if binarizer is not ABOVE_RATIO_OF_MEAN:
        return m > values
    c = m.mean() * values
    if compat == "exact":
        return m > c / 2
    return ~(m.clamp(torch.zeros_like(c), c) / c <= 0.5)


@given(
    st.sampled_from([ABOVE, RESCALED_ABOVE, ABOVE_RATIO_OF_MEAN]),
    MAPS.map(torch.from_numpy),
    st.lists(EIGHTHS | st.floats(-3, 3), min_size=1, max_size=5),
    st.sampled_from(["exact", "reference"]),
)
def test_levels_cut_as_the_formulas_say(
    binarizer: Binarizer, soft_map: Tensor, thresholds: list[float], compat: Compat
) -> None:
    expected = formula(binarizer, soft_map, thresholds, compat)
    assert torch.equal(binarizer.masks(soft_map, thresholds, SIZE, compat), expected)
    small = binarizer.latent_masks(soft_map, thresholds, SIZE, compat, 12)
    assert torch.equal(small, nearest_exact(expected, 12))


@given(st.floats(2.0**-120, 2.0**120, width=32))
def test_ratios_level_is_the_first_value_that_the_references_formula_takes(value: float) -> None:
    c = torch.tensor([[value]])
    level = ABOVE_RATIO_OF_MEAN.levels(c, [1.0], "reference")
    below = level.nextafter(torch.zeros(1))
    assert torch.cat([below, level]).div(c).gt(0.5).tolist() == [[False, True]]


def test_rescaled_maps_stay_below_one(soft_map: torch.Tensor) -> None:
    assert rescale(soft_map).min() == 0
    assert not RESCALED_ABOVE.masks(soft_map, [1.0], SIZE, "exact").any()
    assert rescale(torch.full((16, 16), 0.3)).eq(0).all()


@pytest.mark.parametrize("name", METHODS)
def test_many_thresholds_at_once_are_the_same_as_one_by_one(
    soft_map: torch.Tensor, name: str
) -> None:
    method = METHODS[name]
    masks = method.cutter.masks(soft_map, method.thresholds, SIZE, "exact")
    assert masks.dtype == torch.bool
    for threshold, mask in zip(method.thresholds, masks, strict=True):
        assert torch.equal(mask, method.cutter.masks(soft_map, [threshold], SIZE, "exact")[0])


def test_binarizers_are_told_apart_by_their_names() -> None:
    assert {method.binarizer for method in METHODS.values()} < BINARIZERS.keys()
    assert all(binarizer.name == name for name, binarizer in BINARIZERS.items())


def test_ratio_of_a_positive_mean_is_the_same_in_both_ways(soft_map: torch.Tensor) -> None:
    ratios = [0.25, 0.5, 1.0, 1.7]
    exact, reference = (
        ABOVE_RATIO_OF_MEAN.masks(soft_map, ratios, SIZE, compat)
        for compat in ("exact", "reference")
    )
    assert torch.equal(exact, reference)
    assert 0 < exact.float().mean() < 1


@pytest.mark.parametrize("ratio", [0.0, 1.0, 3.0])
def test_ratio_of_a_mean_that_is_not_positive(soft_map: torch.Tensor, ratio: float) -> None:
    negative, nothing = soft_map - 0.9, torch.zeros(16, 16)
    cut = ABOVE_RATIO_OF_MEAN.masks
    assert cut(negative, [ratio], SIZE, "reference").all()
    assert cut(nothing, [ratio], SIZE, "reference").all()
    assert not cut(negative, [ratio], SIZE, "exact").all()
    assert not cut(nothing, [ratio], SIZE, "exact").any()


@pytest.mark.parametrize(("compat", "shape"), [("exact", (1, 48, 64)), ("reference", (1, 64, 48))])
def test_reference_swaps_height_and_width(
    soft_map: torch.Tensor, compat: Compat, shape: tuple[int, ...]
) -> None:
    assert RESCALED_ABOVE.masks(soft_map, [0.5], (48, 64), compat).shape == shape


def test_latent_masks_take_the_nearest_pixel() -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, :32] = True
    assert torch.equal(nearest_exact(mask, 16)[0, :, 0], torch.arange(16) < 8)


NEW = (ABOVE_QUANTILE, ABOVE_RATIO_OF_MAX, OTSU)


@pytest.mark.parametrize("binarizer", NEW, ids=lambda binarizer: binarizer.name)
@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
def test_nothing_of_a_constant_map_is_inside(binarizer: Binarizer, value: float) -> None:
    constant = torch.full((16, 16), value)
    assert not binarizer.masks(constant, [0.0, 0.5, 1.0], SIZE, "exact").any()


def test_a_quantile_keeps_the_top_places(soft_map: torch.Tensor) -> None:
    masks = ABOVE_QUANTILE.masks(soft_map, [0.0, 0.5, 0.9, 1.0], (16, 16), "exact")
    assert masks.sum(dim=(1, 2)).tolist() == [255, 128, 26, 1]


def test_ties_at_a_quantile_go_in_together() -> None:
    steps = torch.arange(16).float().repeat_interleave(16).view(16, 16)
    inside = ABOVE_QUANTILE.masks(steps, [0.9], (16, 16), "exact")[0]
    assert torch.equal(inside, steps >= 14)


def test_a_map_that_is_zero_almost_everywhere_has_no_full_mask() -> None:
    spike = torch.zeros(16, 16)
    spike[3, 4] = 1.0
    assert ABOVE_QUANTILE.masks(spike, [0.9], (16, 16), "exact").sum() == 1


def test_ratio_of_the_maximum(soft_map: torch.Tensor) -> None:
    inside = ABOVE_RATIO_OF_MAX.masks(soft_map, [0.4], (16, 16), "exact")[0]
    assert torch.equal(inside, soft_map > 0.4 * soft_map.max())


def test_otsu_parts_two_heaps_whatever_the_threshold(soft_map: torch.Tensor) -> None:
    heaps = 0.1 * soft_map
    heaps[:, :5] += 0.5
    masks = OTSU.masks(heaps, [0.1, 7.0], (16, 16), "exact")
    assert torch.equal(masks, (torch.arange(16) < 5).expand(2, 16, 16))


def test_otsu_is_scikit_images(soft_map: torch.Tensor) -> None:
    filters = pytest.importorskip("skimage.filters")
    level = OTSU.levels(soft_map, [0.5], "exact").item()
    assert level == pytest.approx(filters.threshold_otsu(soft_map.numpy()), abs=1e-6)
