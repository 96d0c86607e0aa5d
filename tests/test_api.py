"""One picture at a time from Python, on the embedded model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from piebench_masks.api import Pipeline
from piebench_masks.data.images import load_image
from piebench_masks.data.shapes.grammar import sample_edit
from piebench_masks.data.shapes.render import render_edit
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import METHODS


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load()


@pytest.fixture(scope="module")
def recolouring() -> tuple[Image.Image, np.ndarray, str, str]:
    """A scene, its annotated mask, and the prompts of a colour edit."""
    edit = sample_edit(np.random.default_rng(2**40), 6)
    source, _, mask = render_edit(edit)
    return Image.fromarray(source), mask, edit.source.prompt(), edit.target.prompt()


def test_the_soft_map_is_high_where_the_edit_belongs(
    pipeline: Pipeline, recolouring: tuple[Image.Image, np.ndarray, str, str]
) -> None:
    image, mask, *prompts = recolouring
    soft_map = pipeline.soft_map(image, *prompts, method="attn_based")
    assert soft_map.shape == mask.shape and 0 <= soft_map.min() <= soft_map.max() <= 1
    assert soft_map[mask].mean() > 2 * soft_map[~mask].mean()


def test_the_map_has_the_pictures_size_and_the_edit_the_models(
    pipeline: Pipeline, recolouring: tuple[Image.Image, np.ndarray, str, str], tmp_path: Path
) -> None:
    image, _, *prompts = recolouring
    path = tmp_path / "wide.png"
    image.convert("RGBA").resize((200, 120)).save(path)
    assert pipeline.soft_map(path, *prompts).shape == (120, 200)
    assert pipeline.edit(path, *prompts).size == (64, 64)


def test_an_edit_changes_the_masked_part_most(
    pipeline: Pipeline, recolouring: tuple[Image.Image, np.ndarray, str, str]
) -> None:
    image, mask, *prompts = recolouring
    edited = np.asarray(pipeline.edit(image, *prompts, method="attn_based", threshold=0.35))
    change = np.abs(edited.astype(float) - np.asarray(image)).mean(axis=2)
    assert change[mask].mean() > 2 * change[~mask].mean()
    assert np.array_equal(
        edited, np.asarray(pipeline.edit(image, *prompts, method="attn_based", threshold=0.35))
    )


def test_an_own_method_is_as_good_as_a_name(
    pipeline: Pipeline, recolouring: tuple[Image.Image, np.ndarray, str, str]
) -> None:
    image, _, *prompts = recolouring
    own = pipeline.soft_map(image, *prompts, method=METHODS["diffedit"])
    assert np.array_equal(own, pipeline.soft_map(image, *prompts, method="diffedit"))


def test_equal_prompts_give_an_empty_map_and_an_unknown_method_is_named(
    pipeline: Pipeline, recolouring: tuple[Image.Image, np.ndarray, str, str]
) -> None:
    image, _, prompt, _ = recolouring
    assert not pipeline.soft_map(image, prompt, prompt).any()
    with pytest.raises(BenchmarkError, match="no map method 'best'"):
        pipeline.soft_map(image, prompt, prompt, method="best")


def test_the_same_pixels_from_a_file_and_from_memory_are_the_same(
    pipeline: Pipeline, recolouring: tuple[Image.Image, np.ndarray, str, str], tmp_path: Path
) -> None:
    image, _, *prompts = recolouring
    image.save(tmp_path / "scene.png")
    assert np.array_equal(load_image(tmp_path / "scene.png"), np.asarray(image))
    from_file = pipeline.soft_map(str(tmp_path / "scene.png"), *prompts)
    assert np.array_equal(from_file, pipeline.soft_map(image, *prompts))
    assert torch.is_grad_enabled()
