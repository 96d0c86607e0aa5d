"""What methods and editors are shown of a sample."""

from dataclasses import fields, replace
from typing import get_args

import numpy as np
import pytest
import torch

from piebench_masks.data.rle import to_coco
from piebench_masks.data.sample import Sample
from piebench_masks.data.scene import Knows, Scene, scene_of

MASK = np.eye(4, dtype=bool)
SAMPLE = Sample(
    id="s1",
    image_path="a.png",
    source_prompt="a red cat on a mat",
    target_prompt="a dog on a red mat",
    instruction="Make it a dog",
    edit_type="Random",
    blended_word="cat dog",
    mask=to_coco(MASK),
    target_image_path=None,
    image_digest="0" * 64,
    source_marked=("red cat",),
    target_marked=("dog", "red"),
)
PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize("picture", [PICTURE, torch.from_numpy(PICTURE)])
def test_a_scene_holds_what_the_sample_says(picture: np.ndarray | torch.Tensor) -> None:
    scene = scene_of(SAMPLE, picture)
    assert scene.image.dtype == torch.uint8 and (scene.image.numpy() == PICTURE).all()
    assert (scene.id, scene.instruction, scene.blended_words) == ("s1", "Make it a dog", "cat dog")
    assert (scene.source_prompt, scene.target_prompt) == (
        "a red cat on a mat",
        "a dog on a red mat",
    )
    assert (scene.source_marked, scene.target_marked) == (("red cat",), ("dog", "red"))
    assert scene.annotation is not None and scene.annotation.dtype == torch.bool
    assert (scene.annotation.numpy() == MASK).all()
    assert scene_of(replace(SAMPLE, mask=None), picture).annotation is None


@pytest.mark.parametrize(
    "picture", [PICTURE[..., :1], PICTURE[0], PICTURE.astype(np.float32), PICTURE[None]]
)
def test_what_is_no_picture_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a picture is uint8 \[H, W, 3\]"):
        scene_of(SAMPLE, picture)


SHOWN: dict[Knows, set[str]] = {
    "nothing": set(),
    "prompts": {"source_prompt", "target_prompt", "source_marked", "target_marked"},
    "word": {"source_prompt", "target_prompt", "source_marked", "target_marked", "blended_words"},
    "instruction": {
        *("source_prompt", "target_prompt", "source_marked", "target_marked", "instruction")
    },
    "annotation": {field.name for field in fields(Scene)} - {"id", "image"},
}
SHOWN |= {"type": SHOWN["word"], "unknown": SHOWN["annotation"], "scores": SHOWN["prompts"]}


@pytest.mark.parametrize("knows", get_args(Knows))
def test_a_method_is_shown_no_more_than_it_declares(knows: Knows) -> None:
    scene = scene_of(SAMPLE, PICTURE)
    shown = scene.as_known(knows)
    assert (shown.id, shown.image is scene.image) == ("s1", True)
    blank = Scene("s1", scene.image, "", "")
    for name in SHOWN["annotation"]:
        expected = scene if name in SHOWN[knows] else blank
        assert getattr(shown, name) is getattr(expected, name) or (
            getattr(shown, name) == getattr(expected, name)
        )


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a red cat on a mat", "a dog on a mat", (("red", "cat"), ("dog",))),
        ("a cat", "a big cat", ((), ("big",))),
        ("a big cat", "a cat", (("big",), ())),
        ("a cat", "a cat", ((), ())),
        ("", "a cat", ((), ("a", "cat"))),
        ("a  cat and a dog", "the cat and the dog", (("a", "a"), ("the", "the"))),
    ],
)
def test_changed_words_are_those_that_the_other_prompt_lacks(
    source: str, target: str, expected: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    scene = scene_of(replace(SAMPLE, source_prompt=source, target_prompt=target), PICTURE)
    assert (scene.source_changed, scene.target_changed) == expected


def test_of_hidden_prompts_no_word_is_known() -> None:
    scene = scene_of(SAMPLE, PICTURE).as_known("nothing")
    assert (scene.source_changed, scene.target_changed) == ((), ())
