"""A user's own pictures and list of prompts give samples, or every bad line at once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from piebench_masks.data.folder import load_folder
from piebench_masks.data.parsed import DataError
from piebench_masks.data.pie_bench import EDIT_TYPES
from piebench_masks.data.rle import from_coco


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Image.new("RGB", (20, 10)).save(tmp_path / "my cat.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "dog.jpg")
    mask = np.zeros((10, 20), np.uint8)
    mask[2:5, 3:9] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


def write(root: Path, *lines: Any) -> None:
    (root / "prompts.jsonl").write_text("\n".join(json.dumps(line) for line in lines))


def line(**fields: Any) -> dict[str, Any]:
    return {"image": "my cat.png", "source_prompt": "a cat", "target_prompt": "a [dog]"} | fields


def test_a_csv_list_gives_samples_of_any_size_with_and_without_masks(root: Path) -> None:
    (root / "prompts.csv").write_text(
        "image,source_prompt,target_prompt,mask\n"
        'my cat.png,"a cat, sitting",a dog,mask.png\n'
        "dog.jpg,,a wolf,\n"
    )
    parsed = load_folder(root, on_error="raise")
    assert (parsed.rejections, parsed.edit_types) == ([], ("Random",))
    cat, dog = parsed.samples
    assert (cat.id, cat.source_prompt, cat.target_prompt) == ("my-cat", "a cat, sitting", "a dog")
    assert cat.mask is not None
    assert (from_coco(cat.mask).shape, from_coco(cat.mask).sum()) == ((10, 20), 18)
    assert from_coco(cat.mask)[2:5, 3:9].all()
    assert (dog.id, dog.source_prompt, dog.mask, dog.edit_type) == (
        "dog",
        "",
        None,
        "Random",
    )


def test_a_json_list_may_name_ids_types_and_several_edits_of_one_image(root: Path) -> None:
    write(root, line(), line(target_prompt="a fox", edit_type=1), line(id="mine", edit_type="9"))
    parsed = load_folder(root, prompts="prompts.jsonl", on_error="raise")
    samples = parsed.samples
    assert [(s.id, s.edit_type) for s in samples] == [
        ("my-cat-1", "Random"),
        ("my-cat-2", "Change Object"),
        ("mine", "Change Style"),
    ]
    assert parsed.edit_types == EDIT_TYPES
    assert samples[0].fingerprint(["prompts"]) != samples[1].fingerprint(["prompts"])
    assert samples[0].target_prompt == "a dog"


def test_types_of_ones_own_stand_in_the_order_of_their_first_line(root: Path) -> None:
    kinds = "Weather", "Season", "Weather", "7", None
    lines = [line() if kind is None else line(edit_type=kind) for kind in kinds]
    write(root, *lines)
    parsed = load_folder(root, prompts="prompts.jsonl", on_error="raise")
    assert [s.edit_type for s in parsed.samples] == [*kinds[:4], "Random"]
    assert parsed.edit_types == ("Weather", "Season", "7", "Random")


def test_a_list_of_types_says_their_order_and_that_there_are_no_others(root: Path) -> None:
    write(root, line(id="a", edit_type="Weather"), line(id="b", edit_type="Style"), line(id="c"))
    types = ["Season", "Weather"]
    parsed = load_folder(root, prompts="prompts.jsonl", edit_types=types, on_error="skip")
    assert [(s.id, s.edit_type) for s in parsed.samples] == [("a", "Weather")]
    assert parsed.edit_types == ("Season", "Weather")
    assert [(item.sample_id, item.reason) for item in parsed.rejections] == [
        ("b", "editing_type_id 'Style' is none of 'Season', 'Weather'"),
        ("c", "editing_type_id is missing"),
    ]


@pytest.mark.parametrize("types", ["Season", 3])
def test_types_that_are_no_list_are_named(root: Path, types: Any) -> None:
    write(root, line())
    with pytest.raises(DataError, match=r"dataset\.load\.edit_types to a list of labels"):
        load_folder(root, prompts="prompts.jsonl", edit_types=types, on_error="skip")


@pytest.mark.parametrize("label", ["Overall", " blank", "", "x" * 61, "a\tb"])
def test_a_type_that_tables_could_not_show_is_named(root: Path, label: str) -> None:
    write(root, line(id="a", edit_type="Season"), line(id="b", edit_type=label))
    parsed = load_folder(root, prompts="prompts.jsonl", on_error="skip")
    assert [item.sample_id for item in parsed.rejections] == ["b"]
    assert "editing_type_id" in parsed.rejections[0].reason
    with pytest.raises(DataError, match="The edit types of the data set cannot be used"):
        types = ["Season", label]
        load_folder(root, prompts="prompts.jsonl", edit_types=types, on_error="skip")


def test_the_fingerprint_follows_the_pixels_of_the_mask(root: Path) -> None:
    write(root, line(mask="mask.png"))
    [before] = load_folder(root, prompts="prompts.jsonl", on_error="raise").samples
    Image.new("L", (20, 10), 255).save(root / "mask.png")
    [after] = load_folder(root, prompts="prompts.jsonl", on_error="raise").samples
    assert before.fingerprint(["mask"]) != after.fingerprint(["mask"])


def test_every_bad_line_is_named_at_once(root: Path) -> None:
    write(
        root,
        line(id="sound"),
        line(id="gone", image="gone.png"),
        line(id="outside", image="../x.png"),
        line(id="large", mask="dog.jpg"),
        line(id="type", edit_type=10),
        {"id": "short", "image": "dog.jpg"},
        3,
    )
    with pytest.raises(DataError) as caught:
        load_folder(root, prompts="prompts.jsonl", on_error="raise")
    reasons = {item.sample_id: item.reason for item in caught.value.rejections}
    assert {name: reason for name, reason in reasons.items() if name == "sound"} == {}
    for name, words in {
        "gone": "is missing",
        "outside": "leaves",
        "large": "is 8x8, not 20x10",
        "type": "editing_type_id '10'",
        "short": "original_prompt is missing",
        "line": "not an object",
    }.items():
        assert words in reasons[name]
    samples = load_folder(root, prompts="prompts.jsonl", on_error="skip").samples
    assert [sample.id for sample in samples] == ["sound"]


def test_texts_keep_the_line_ends_inside_them(root: Path) -> None:
    rows = 'image,source_prompt,target_prompt\r\ndog.jpg,"a\u2028b\nc",a wolf\r\n'
    (root / "prompts.csv").write_bytes(rows.encode())
    (root / "prompts.jsonl").write_text(
        json.dumps(line(source_prompt="a\u2028b\nc"), ensure_ascii=False), encoding="utf-8"
    )
    for name in ("prompts.csv", "prompts.jsonl"):
        [sample] = load_folder(root, prompts=name, on_error="raise").samples
        assert sample.source_prompt == "a\u2028b\nc"


def test_an_id_of_null_is_none(root: Path) -> None:
    write(root, line(id=None), line(id=None))
    samples = load_folder(root, prompts="prompts.jsonl", on_error="raise").samples
    assert [sample.id for sample in samples] == ["my-cat-1", "my-cat-2"]


def test_a_comma_outside_quotation_marks_is_named(root: Path) -> None:
    (root / "prompts.csv").write_text(
        "image,source_prompt,target_prompt\ndog.jpg,a dog, sitting,a wolf\n"
    )
    with pytest.raises(DataError, match=r"dog: more cells .* quotation marks"):
        load_folder(root, on_error="raise")


@pytest.mark.parametrize(
    "header", ["image;source_prompt;target_prompt", "image,source_prompt", "image,image", ""]
)
def test_other_columns_than_those_needed_are_one_error(root: Path, header: str) -> None:
    (root / "prompts.csv").write_text(f"{header}\ndog.jpg,a dog,a wolf\n")
    with pytest.raises(DataError, match="its first line names the columns") as caught:
        load_folder(root, on_error="skip")
    assert caught.value.rejections == ()


def test_the_bad_line_of_a_json_list_is_numbered(root: Path) -> None:
    (root / "prompts.jsonl").write_text('{"image": "dog.jpg"}\n\n{"image": 1, "image": 2}')
    with pytest.raises(DataError, match="line 3: a name is given twice"):
        load_folder(root, prompts="prompts.jsonl", on_error="raise")


@pytest.mark.parametrize("text", [None, "{", '"unclosed'])
def test_a_list_that_cannot_be_read_is_one_error_with_the_remedy(
    root: Path, text: str | None
) -> None:
    if text is not None:
        (root / "prompts.jsonl").write_text(text)
    with pytest.raises(
        DataError, match=r"prompts\.jsonl .*write a CSV file with the columns image"
    ):
        load_folder(root, prompts="prompts.jsonl", on_error="raise")


def test_a_json_object_has_a_pair_of_prompts_an_image(root: Path) -> None:
    pairs = {"my cat.png": ["a cat", "a dog"], "dog.jpg": ["", "a wolf"]}
    (root / "images.json").write_text(json.dumps(pairs))
    parsed = load_folder(root, prompts="images.json", on_error="raise")
    assert [(s.id, s.source_prompt, s.target_prompt) for s in parsed.samples] == [
        ("my-cat", "a cat", "a dog"),
        ("dog", "", "a wolf"),
    ]


def test_images_without_a_pair_of_prompts_are_named(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "fox.png")
    pairs = {"my cat.png": ["a cat"], "dog.jpg": "a wolf", "fox.png": ["a fox", "a dog"]}
    (root / "images.json").write_text(json.dumps(pairs))
    parsed = load_folder(root, prompts="images.json", on_error="skip")
    assert [item.sample_id for item in parsed.rejections] == ["my-cat", "dog"]
    assert all("prompt is missing" in item.reason for item in parsed.rejections)
    (root / "images.json").write_text('["my cat.png"]')
    with pytest.raises(DataError, match="no object of"):
        load_folder(root, prompts="images.json", on_error="skip")
    (root / "images.json").write_text('{"dog.jpg": ["a", "b"], "dog.jpg": ["a", "c"]}')
    with pytest.raises(DataError, match="given twice"):
        load_folder(root, prompts="images.json", on_error="skip")
