"""What a sample's artifacts are named by."""

import re
from dataclasses import replace
from typing import Any

import pytest

from piebench_masks.data.sample import SAMPLE_FIELDS, Sample, item_name

SAMPLE = Sample(
    "s1",
    "a.png",
    "a red cat",
    "a red dog",
    "Make it a dog",
    "Change Object",
    "cat dog",
    {"size": [2, 2], "counts": "04"},
    "b.png",
    "0" * 64,
    "1" * 64,
    ("cat",),
    ("dog",),
    annotated={"size": [2, 2], "counts": "04"},
    border=1,
    source_text="a red [cat]",
    target_text="a red [dog]",
)
CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a corrected blended word": ({"blended_word": "cat hound"}, {"blended_word"}),
    "another instruction": ({"instruction": ""}, {"instruction"}),
    "another prompt": ({"source_prompt": "a cat"}, {"prompts"}),
    "prompts exchanged": (
        {"source_prompt": "a red dog", "target_prompt": "a red cat"},
        {"prompts"},
    ),
    "other brackets": ({"source_marked": ("red cat",)}, {"prompts"}),
    "another image": ({"image_digest": "2" * 64}, {"image"}),
    "another target": ({"target_digest": "2" * 64}, {"target_image"}),
    "no target": ({"target_digest": None, "target_image_path": None}, {"target_image"}),
    "another mask": ({"mask": {"size": [2, 2], "counts": "13"}}, {"mask"}),
    "no mask": ({"mask": None}, {"mask"}),
    "another annotation": ({"annotated": {"size": [2, 2], "counts": "13"}}, {"annotation"}),
    "another border": ({"border": 2}, {"annotation"}),
    "another text": ({"target_text": "a [red dog]"}, {"texts"}),
    "another type": ({"edit_type": "Random"}, set()),
    "another id": ({"id": "s2"}, set()),
    "files moved": ({"image_path": "x/a.png", "target_image_path": "x/b.png"}, set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_shows_in_the_fingerprints_of_its_field_and_no_other(name: str) -> None:
    change, expected = CHANGES[name]
    after = replace(SAMPLE, **change)
    changed = {f for f in SAMPLE_FIELDS if SAMPLE.fingerprint([f]) != after.fingerprint([f])}
    assert changed == expected
    for field in SAMPLE_FIELDS:  # and in any set of fields that it is one of
        others = [other for other in SAMPLE_FIELDS if other != field]
        differs = SAMPLE.fingerprint(others) != after.fingerprint(others)
        assert differs == bool(expected - {field})


def test_a_fingerprint_does_not_depend_on_the_order_of_its_fields() -> None:
    fields = [*SAMPLE_FIELDS]
    assert SAMPLE.fingerprint(fields) == SAMPLE.fingerprint(reversed(fields))  # type: ignore
    assert SAMPLE.fingerprint(fields) == replace(SAMPLE).fingerprint(set(fields))


def test_texts_cannot_pass_for_one_another() -> None:
    fields = [
        replace(SAMPLE, source_prompt=a, target_prompt=b) for a, b in (("a", "b a"), ("a b", "a"))
    ]
    assert fields[0].fingerprint(["prompts"]) != fields[1].fingerprint(["prompts"])


def test_an_items_name_is_the_id_and_twelve_digits() -> None:
    name = item_name(SAMPLE, ("image", "mask"))
    assert re.fullmatch("s1-[0-9a-f]{12}", name)
    assert name == item_name(SAMPLE, ["mask", "image"]) != item_name(SAMPLE, ["image"])


def test_a_field_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="blended: no field of a sample; there are image, "):
        SAMPLE.fingerprint(["image", "blended"])
