"""Laws of PSNR, MSE and SSIM; their values are checked by the oracle and the parity tests."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.pixel import Pixel, ssim


def test_the_parts_errors_add_up_to_the_whole(noisy: tuple[EditCase, np.ndarray]) -> None:
    found = Pixel()(*noisy)
    np.testing.assert_allclose(found["mse_unedit_part"] + found["mse_edit_part"], found["mse"])


def test_an_image_is_like_itself(noisy: tuple[EditCase, np.ndarray]) -> None:
    case, _ = noisy
    found = Pixel()(case, case.source[None])
    for suffix in ("", "_unedit_part", "_edit_part"):
        assert found[f"mse{suffix}"] == 0
        assert found[f"psnr{suffix}"] == np.inf
        assert found[f"ssim{suffix}"] == pytest.approx(1)


def test_ssim_is_symmetric_and_at_most_one(noisy: tuple[EditCase, np.ndarray]) -> None:
    case, edited = noisy
    one, two = (
        torch.from_numpy(image)[None].movedim(-1, 1) / 255 for image in (case.source, edited[0])
    )
    assert ssim(one, two).item() == pytest.approx(ssim(two, one).item())
    assert -1 <= ssim(one, two).item() < 1


@pytest.mark.parametrize(
    ("mask", "undefined"),
    [
        (None, {"_unedit_part", "_edit_part"}),
        (np.ones((64, 64), bool), {"_unedit_part"}),
        (np.zeros((64, 64), bool), {"_edit_part"}),
    ],
    ids=["no mask", "full mask", "empty mask"],
)
def test_a_part_without_pixels_has_no_score(
    noisy: tuple[EditCase, np.ndarray], mask: np.ndarray | None, undefined: set[str]
) -> None:
    case, edited = noisy
    metric = Pixel()
    found = metric(replace(case, mask=mask), edited)
    assert found.keys() == metric.columns.keys()
    for name, values in found.items():
        part = name.removeprefix(name.split("_")[0])
        assert values.shape == (5,)
        assert np.isnan(values).all() == (part in undefined), name


def test_a_variants_score_does_not_depend_on_the_others(
    noisy: tuple[EditCase, np.ndarray],
) -> None:
    case, edited = noisy
    together, alone = Pixel(rows=4)(case, edited), Pixel(rows=4)(case, edited[3:4])
    for name, values in alone.items():
        np.testing.assert_array_equal(values, together[name][3:4])
