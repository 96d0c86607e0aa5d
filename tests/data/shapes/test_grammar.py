"""The language of the shapes world."""

import numpy as np
import pytest

from piebench_masks.data.shapes import grammar
from piebench_masks.data.shapes.grammar import (
    CLASHES,
    WORDS,
    Edit,
    Scene,
    sample_edit,
    sample_scene,
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(np.random.default_rng(seed)) for seed in range(2000)]


def edits(edit_type: int, count: int = 100) -> list[Edit]:
    return [sample_edit(np.random.default_rng([edit_type, i]), edit_type) for i in range(count)]


def words_of(scene: Scene) -> list[str]:
    return scene.prompt().split()


def test_prompts_use_every_word_and_no_other(scenes: list[Scene]) -> None:
    assert {word for scene in scenes for word in words_of(scene)} == set(WORDS)


def test_a_prompt_reads_as_the_specification_says() -> None:
    left = grammar.Thing("red", "star", "small", "tilted", "striped", "left", (0.5,) * 6)
    right = grammar.Thing("blue", "ring", None, None, None, "right", (0.5,) * 6)
    scene = Scene((left, right), "grass", "neon", (0.5,) * 3)
    assert scene.prompt() == (
        "a neon of a small tilted red striped star on the left "
        "and a blue ring on the right on grass"
    )
    pointed = dict(scene.words())
    assert (pointed["neon"], pointed["star"], pointed["ring"], pointed["grass"]) == (3, 0, 1, 2)


def test_no_object_has_the_colour_of_its_background(scenes: list[Scene]) -> None:
    scenes = scenes + [s for kind in (6, 8) for e in edits(kind) for s in (e.source, e.target)]
    pairs = {(thing.color, scene.background) for scene in scenes for thing in scene.things}
    assert not pairs & CLASHES


def test_two_objects_differ_in_colour_and_shape_and_face_each_other(scenes: list[Scene]) -> None:
    scenes = scenes + [
        s for kind in range(1, 10) for e in edits(kind) for s in (e.source, e.target)
    ]
    for first, second in (scene.things for scene in scenes if len(scene.things) == 2):
        assert first.color != second.color
        assert first.shape != second.shape
        assert first.slot is not None
        assert second.slot == grammar.OPPOSITE[first.slot]


def test_every_pose_shows_on_its_shape(scenes: list[Scene]) -> None:
    scenes = scenes + [e.target for e in edits(1)]
    for thing in (thing for scene in scenes for thing in scene.things if thing.pose):
        assert thing.pose in grammar.POSES_OF[thing.shape]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (1, grammar.SHAPES),
        (4, grammar.SIZES),
        (5, grammar.POSES),
        (6, grammar.COLORS),
        (7, grammar.MATERIALS),
        (8, grammar.BACKGROUNDS),
        (9, ("a", "of", *grammar.STYLES)),
    ],
)
def test_an_edit_changes_words_of_its_kind_only(kind: int, words: tuple[str, ...]) -> None:
    for edit in edits(kind):
        before, after = words_of(edit.source), words_of(edit.target)
        assert before != after
        kept = [[word for word in said if word not in words] for said in (before, after)]
        assert kept[0] == kept[1]


def test_adding_and_deleting_name_the_second_object() -> None:
    for added, deleted in zip(edits(2), edits(3), strict=True):
        for one, both in ((added.source, added.target), (deleted.target, deleted.source)):
            assert both.things[:1] == one.things
            assert len(both.things) == 2


def test_type_zero_draws_every_kind() -> None:
    assert {edit.kind for edit in edits(0, 200)} == set(range(1, 10))
