"""Drawing the shapes world: exact masks, and edits that touch nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from piebench_masks.data.shapes import grammar
from piebench_masks.data.shapes.grammar import Scene, Thing, sample_edit, sample_scene
from piebench_masks.data.shapes.render import render, render_edit


def scene_of(**attributes: str | None) -> Scene:
    described = {"color": "red", "shape": "square", "size": None, "pose": None, "material": None}
    thing = Thing(**(described | attributes), slot=None, jitter=(0.5,) * 6)
    return Scene((thing,), "grass", None, (0.5,) * 3)


@pytest.mark.parametrize("edit_type", range(1, 10))
def test_pixels_that_differ_lie_inside_the_mask_and_fill_much_of_it(edit_type: int) -> None:
    for index in range(20):
        edit = sample_edit(np.random.default_rng([edit_type, index]), edit_type)
        source, target, mask = render_edit(edit)
        differs = (source != target).any(axis=-1)
        assert not (differs & ~mask).any()
        assert differs.sum() > 0.1 * mask.sum()


def test_the_mask_of_a_background_is_all_that_is_not_object() -> None:
    for index in range(20):
        edit = sample_edit(np.random.default_rng(index), 8)
        covered = render([edit.source]).coverage[0].max(axis=0)
        assert (render_edit(edit)[2] == (covered < 1)).all()


def test_the_mask_of_a_style_is_everything() -> None:
    assert render_edit(sample_edit(np.random.default_rng(0), 9))[2].all()


def test_a_scene_looks_the_same_in_any_company() -> None:
    scenes = [sample_scene(np.random.default_rng(seed)) for seed in range(150)]
    together = render(scenes)
    for index in range(0, 150, 29):
        alone = render([scenes[index]])
        assert (alone.images[0] == together.images[index]).all()
        assert (alone.coverage[0] == together.coverage[index]).all()


def test_coverage_is_the_area_of_the_outline() -> None:
    side = 2 * 0.8 * 11.5 * 1.25  # a square in the middle of the image, unjittered
    assert render([scene_of()]).coverage.sum() == pytest.approx(side**2, rel=0.01)


@pytest.mark.parametrize("attribute", ["color", "shape", "size", "pose", "material"])
def test_every_word_about_an_object_shows(attribute: str) -> None:
    words = {
        "color": grammar.COLORS,
        "shape": grammar.SHAPES,
        "size": (None, *grammar.SIZES),
        "pose": (None, *grammar.POSES),
        "material": (None, *grammar.MATERIALS),
    }[attribute]
    base = {"shape": "triangle"} if attribute != "shape" else {}
    images = render([scene_of(**(base | {attribute: word})) for word in words]).images
    assert distinct(images) == len(words)


def test_every_background_and_style_shows() -> None:
    scenes = [
        replace(scene_of(), background=background, style=style)
        for background in grammar.BACKGROUNDS
        for style in (None, *grammar.STYLES)
    ]
    assert distinct(render(scenes).images) == len(scenes)


def distinct(images: np.ndarray) -> int:
    """How many images differ from each other by more than one level on average."""
    apart = np.abs(images[:, None].astype(int) - images[None]).mean(axis=(2, 3, 4)) > 1
    return sum(apart[i, :i].all() for i in range(len(images)))
