"""One U-Net call for all methods and samples, as if each had been asked for alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.ddpm import add_noise, start_timestep
from piebench_masks.diffusion.prompt_diff import PromptError
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import BASELINES, METHODS, SEGMENTERS
from piebench_masks.masks.record import MapError
from piebench_masks.masks.soft_maps import soft_maps

PAIRS = (
    ("a red circle on grass", "a blue circle on grass"),
    ("a circle on sand", "a big circle on sand"),
    ("a square and a red circle", "a square"),
)
ALL = ("ours", "attn_based", "noise_based", "diffedit")
ZOO = tuple(
    name for name in METHODS if name not in {*BASELINES, *SEGMENTERS, "saliency", "blended_word"}
)
"""All methods that ask the diffusion model about two prompts."""
SAME = (("a red circle", "a red circle"),)
UNSEEN = ((f"a{' red' * 40} circle", f"a{' red' * 40} square"),)


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    mean, std = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return Posterior(mean, std.abs())


@pytest.fixture
def maps(tiny: Backbone, posterior: Posterior) -> Any:
    def compute(
        names: tuple[str, ...] = ALL, pairs: tuple[tuple[str, str], ...] = PAIRS, **settings: Any
    ) -> dict[str, list[Tensor | BenchmarkError]]:
        first = settings.pop("first", 0)
        rows = posterior[first : first + len(pairs)]
        picture = torch.zeros(64, 64, 3, dtype=torch.uint8)
        scenes = [Scene(str(i), picture, *pair) for i, pair in enumerate(pairs)]
        return soft_maps(tiny, rows, scenes, {n: METHODS[n] for n in names}, **settings)

    return compute


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_every_method_has_a_map_on_its_native_grid(maps: Any) -> None:
    found = maps()
    assert list(found) == list(ALL)
    for soft_map in (each for row in found.values() for each in row):
        assert (soft_map.shape, soft_map.dtype) == ((16, 16), torch.float32)


@pytest.mark.parametrize(
    ("names", "num_repeat", "rows"),
    [
        (("attn_based",), 1, 1),
        (("ours", "attn_based", "noise_based"), 1, 3),
        (("ours", "attn_based", "noise_based"), 2, 6),
        (ALL, 1, 2 * 10 + 1),
        (("full", "centre"), 1, 0),
    ],
)
def test_equal_rows_are_computed_once(
    maps: Any, tiny: Backbone, names: tuple[str, ...], num_repeat: int, rows: int
) -> None:
    before = tiny.counts["unet_rows"]
    maps(names, num_repeat=num_repeat)
    assert tiny.counts["unet_rows"] - before == rows * len(PAIRS)


@pytest.mark.parametrize("sample_mode", ["argmax", "sample"])
def test_a_map_does_not_depend_on_other_samples_or_methods(maps: Any, sample_mode: str) -> None:
    together = maps(ZOO, num_repeat=2, sample_mode=sample_mode)
    for i, pair in enumerate(PAIRS):
        for name in ZOO:
            alone = maps((name,), (pair,), first=i, num_repeat=2, sample_mode=sample_mode)
            assert_same(alone[name], together[name][i : i + 1])


def test_identical_prompts_leave_nothing_to_edit(maps: Any) -> None:
    for name, (soft_map,) in maps(ZOO, SAME).items():
        method = METHODS[name]
        assert soft_map.eq(0).all()
        assert not method.cutter.masks(soft_map, method.thresholds, (64, 64), "exact").any()


def test_identical_prompts_in_the_reference(maps: Any) -> None:
    found = {name: soft_map for name, (soft_map,) in maps(pairs=SAME, compat="reference").items()}
    assert isinstance(found["ours"], PromptError)
    assert isinstance(found["attn_based"], PromptError)
    cut = METHODS["noise_based"].cutter.masks
    assert cut(found["noise_based"], [3.0], (64, 64), "reference").all()


def test_an_unseen_change(maps: Any) -> None:
    assert all(soft_map.eq(0).all() for (soft_map,) in maps(ZOO, UNSEEN).values())
    assert isinstance(maps(pairs=UNSEEN, compat="reference")["ours"][0], MapError)


def test_a_sample_without_a_map_does_not_touch_the_others(maps: Any) -> None:
    mixed = maps(pairs=(PAIRS[0], *SAME, PAIRS[2]), compat="reference")
    expected = maps(compat="reference")
    for name in ALL:
        assert_same(mixed[name][::2], expected[name][::2])
    assert isinstance(mixed["ours"][1], PromptError)


def test_only_baselines_that_read_the_annotation_miss_it(maps: Any) -> None:
    found = maps(("centre", "oracle"), PAIRS[:1])
    assert isinstance(found["centre"][0], Tensor)
    assert isinstance(found["oracle"][0], MapError)


@pytest.mark.parametrize("noise_dtype", [torch.float32, torch.float16])
def test_the_noise_is_the_stream_of_the_precision_asked_for(
    tiny: Backbone, posterior: Posterior, maps: Any, noise_dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(8128)
    noise = torch.randn(1, 4, 16, 16, generator=generator, dtype=noise_dtype).float()
    timestep = start_timestep(0.5)
    eps = tiny.predict_noise(
        add_noise(posterior.mean[[0, 0]], noise, tiny.level(timestep)),
        torch.full((2,), timestep),
        tiny.encode_prompts(PAIRS[0]),
    )
    expected = (eps[0] - eps[1]).mean(dim=0)
    (found,) = maps(("noise_based",), PAIRS[:1], noise_dtype=noise_dtype)["noise_based"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    (other,) = maps(("noise_based",), PAIRS[:1], noise_dtype=torch.float64)["noise_based"]
    assert not torch.allclose(found, other, atol=1e-2)
