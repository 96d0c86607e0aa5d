"""The batched float32 flow against the loops of `oracle.py`, from pictures to scores."""

from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from oracle import Oracle

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.editing.turbo_edit import edited, invert
from piebench_masks.masks import METHODS
from piebench_masks.masks.binarize import nearest_exact
from piebench_masks.masks.soft_maps import soft_maps
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.pixel import Pixel
from piebench_masks.metrics.segmentation import average_precision, sweep_scores

MODELLED = ("ours", "attn_based", "noise_based", "diffedit")
SOURCES = ("a red circle on grass", "a circle on sand", "a square and a red circle and sand")
TARGETS = ("a blue circle on grass", "a big circle on sand", "a big square and a circle")
"""A replaced word, an insert, and all at once with a repeated word."""


@pytest.fixture(scope="module")
def slow(tiny_folder: Path) -> Oracle:
    return Oracle.load(tiny_folder)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def posterior(tiny: Backbone, images: np.ndarray) -> Posterior:
    return tiny.encode_images(torch.from_numpy(images))


@pytest.mark.parametrize(
    ("strength", "num_repeat", "sample_mode"), [(0.5, 1, "argmax"), (0.75, 2, "sample")]
)
def test_maps_and_the_masks_of_every_threshold(
    tiny: Backbone,
    slow: Oracle,
    images: np.ndarray,
    posterior: Posterior,
    strength: float,
    num_repeat: int,
    sample_mode: str,
) -> None:
    settings = {"strength": strength, "num_repeat": num_repeat, "sample_mode": sample_mode}
    methods = {name: METHODS[name] for name in MODELLED}
    scenes = [
        Scene(str(i), torch.from_numpy(images[i]), source, target)
        for i, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True))
    ]
    found = soft_maps(tiny, posterior, scenes, methods, seed=7, **settings)  # type: ignore[arg-type]
    for name, method in methods.items():
        for i, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
            expected = slow.soft_map(name, images[i], source, target, seed=7, **settings)
            soft_map = found[name][i]
            assert isinstance(soft_map, torch.Tensor)
            np.testing.assert_allclose(soft_map, expected, atol=5e-5, err_msg=name)
            cut = method.cutter.masks
            masks = cut(soft_map, method.thresholds, (64, 64), "exact").numpy()
            for threshold, mask in list(zip(method.thresholds, masks, strict=True))[::4]:
                wanted, distance = oracle.binarise(name, expected, threshold, 64)
                sure = distance > 1e-4
                assert sure.mean() > 0.5
                np.testing.assert_array_equal(mask[sure], wanted[sure])


@pytest.mark.parametrize(("steps", "w"), [(4, 1.5), (3, 1.0)])
def test_edits_under_masks(
    tiny: Backbone,
    slow: Oracle,
    images: np.ndarray,
    posterior: Posterior,
    steps: int,
    w: float,
) -> None:
    left = np.arange(64) < 30 + np.zeros((64, 1))
    pictures = np.stack([left, ~left, left & False, left | True])
    masks = nearest_exact(torch.from_numpy(pictures), 16)
    owner = torch.tensor([0, 1, 1, 2])
    texts = tiny.encode_prompts(SOURCES), tiny.encode_prompts(TARGETS)
    inversion = invert(tiny, posterior.mean, *texts, steps=steps, seed=7)  # type: ignore[arg-type]
    *_, latents = edited(tiny, inversion, *texts, masks, owner, steps=steps, w=w)  # type: ignore[arg-type]
    decoded = tiny.decode(latents).numpy()
    for mask, i, latent, picture in zip(pictures, owner, latents, decoded, strict=True):
        cells = oracle.nearest(mask, 16)
        expected = slow.edit(images[i], SOURCES[i], TARGETS[i], cells, steps=steps, w=w, seed=7)
        np.testing.assert_allclose(latent, expected, atol=1e-3)
        assert np.abs(picture.astype(int) - slow.decode(expected)).max() <= 1


def test_segmentation_scores() -> None:
    rng = np.random.default_rng(1)
    target = np.zeros((40, 48), dtype=bool)
    target[10:30, 8:30] = True
    target[[0, -1]] = target[:, [0, -1]] = True  # the benchmark's border
    soft = oracle.bilinear(rng.random((8, 8)), 48)[:40].astype(np.float32).round(2)
    levels = np.float32([-1.0, 0.2, 0.5, 0.8, 2.0])
    found = sweep_scores(soft, levels, target)
    for i, level in enumerate(levels):
        expected = oracle.segmentation(soft >= level, target)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name][i] == value, name
    expected = oracle.average_precision(soft.astype(float), target)
    assert average_precision(soft, target) == pytest.approx(expected)


def test_pixel_scores() -> None:
    rng = np.random.default_rng(3)
    source, edited = rng.integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    mask = rng.random((9, 7)) < 0.4
    found = Pixel(rows=2)(EditCase(source, None, mask, "", ""), edited[None])
    for suffix, part in {"": mask | True, "_unedit_part": ~mask, "_edit_part": mask}.items():
        for name, value in oracle.pixel_scores(source, edited, part).items():
            assert found[f"{name}{suffix}"].item() == pytest.approx(value, abs=1e-5), name
