"""A PIE-Bench folder gives its samples, or every offender at once and nothing else."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from piebench_masks.data.entries import check_runs, marked_words
from piebench_masks.data.parsed import DataError
from piebench_masks.data.pie_bench import EDIT_TYPES, load_pie_bench
from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import SAMPLE_FIELDS, Sample
from piebench_masks.data.table import read_samples, samples_table

SIZE = 8
SHARED = Path(os.environ.get("PIEBENCH_SHARED", Path(__file__).parents[3] / "shared"))
ENTRY = {
    "image_path": "0_random/sound.png",
    "original_prompt": "a [red] ball",
    "editing_prompt": "a [[blue]] ball",
    "editing_instruction": "Make it blue",
    "editing_type_id": "6",
    "blended_word": "ball ball",
    "mask": [0, 3, 60, 100],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "bench" / "annotation_images" / "0_random"
    folder.mkdir(parents=True)
    Image.new("RGB", (SIZE, SIZE), (1, 2, 3)).save(folder / "sound.png")
    Image.new("RGB", (SIZE, SIZE + 1)).save(folder / "tall.png")
    (folder / "torn.png").write_bytes((folder / "sound.png").read_bytes()[:40])
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return tmp_path / "bench"


def write(root: Path, mapping: object) -> Path:
    text = mapping if isinstance(mapping, str) else json.dumps(mapping)
    (root / "mapping_file.json").write_text(text)
    return root


def load(root: Path, on_error: Any = "raise", **options: Any) -> tuple[list[Sample], list[Any]]:
    parsed = load_pie_bench(root, mask_size=SIZE, border=0, on_error=on_error, **options)
    assert parsed.edit_types == EDIT_TYPES
    return parsed.samples, parsed.rejections


def test_a_sound_entry_becomes_a_sample(root: Path) -> None:
    [sample], rejections = load(write(root, {"one": ENTRY}))
    assert rejections == []
    assert (sample.source_prompt, sample.target_prompt) == ("a red ball", "a blue ball")
    assert (sample.id, sample.edit_type, sample.blended_word) == (
        "one",
        "Change Attribute Color",
        "ball ball",
    )
    assert (sample.source_marked, sample.target_marked) == (("red",), ("blue",))
    assert sample.instruction == "Make it blue"
    assert sample.mask is not None
    assert np.flatnonzero(from_coco(sample.mask)).tolist() == [0, 1, 2, 60, 61, 62, 63]


def test_the_border_is_part_of_the_mask(root: Path) -> None:
    write(root, {"one": {**ENTRY, "mask": []}})
    [sample] = load_pie_bench(root, mask_size=SIZE, border=1, on_error="raise").samples
    assert sample.mask is not None
    assert from_coco(sample.mask).sum() == SIZE**2 - (SIZE - 2) ** 2


def test_a_benchmark_may_have_no_masks_and_may_know_the_true_edit(root: Path) -> None:
    entry = {name: value for name, value in ENTRY.items() if name != "mask"}
    entry["target_image_path"] = "0_random/sound.png"
    [sample], _ = load(write(root, {"one": entry}))
    assert sample.mask is None
    assert sample.target_image_path == "0_random/sound.png"


def test_samples_keep_the_order_of_the_file_and_progress_counts_every_entry(root: Path) -> None:
    ids = [f"s{number}" for number in (3, 1, 2, 5, 4)]
    write(root, {**dict.fromkeys(ids, ENTRY), "bad": None})
    ticks: list[None] = []
    samples, rejections = load(root, "skip", progress=lambda: ticks.append(None))
    assert [sample.id for sample in samples] == ids
    assert [rejection.sample_id for rejection in rejections] == ["bad"]
    assert len(ticks) == 6


@pytest.mark.parametrize(
    ("field", "value", "changes"),
    [
        ("original_prompt", "a green ball", True),
        ("editing_prompt", "a green ball", True),
        ("blended_word", "ball", True),
        ("editing_instruction", "", True),
        ("editing_type_id", "0", False),
        ("mask", [0, 4], True),
        ("mask", None, True),
        ("target_image_path", "0_random/sound.png", True),
        ("editing_prompt", "a blue [ball]", True),
        ("editing_prompt", "a [blue ]ball", True),
        ("mask", [0, 1, 1, 2, 60, 4], False),
    ],
)
def test_the_fingerprint_follows_what_can_change_a_result(
    root: Path, field: str, value: object, changes: bool
) -> None:
    [before, after], _ = load(write(root, {"a": ENTRY, "b": {**ENTRY, field: value}}))
    prints = [sample.fingerprint(SAMPLE_FIELDS) for sample in (before, after)]
    assert (prints[0] != prints[1]) == changes


def test_the_digest_follows_the_bytes_of_the_image(root: Path) -> None:
    [before], _ = load(write(root, {"a": ENTRY}))
    Image.new("RGB", (SIZE, SIZE)).save(root / "annotation_images/0_random/sound.png")
    [after], _ = load(root)
    assert before.image_digest != after.image_digest
    assert before.fingerprint(["image"]) != after.fingerprint(["image"])


@pytest.mark.parametrize(
    ("prompt", "marked"),
    [
        ("[cat] sat on a [red mat]", ("cat", "red mat")),
        ("a [[blue]] ball", ("blue",)),
        ("a [very [big] ] ball", ("very big",)),
        ("a [ cat", ()),
        ("a cat] and [a dog", ()),
        ("] [cat] [", ("cat",)),
        ("a [cat [dog] mat", ("dog",)),
        ("[] [ ] cat", ()),
        ("a cat", ()),
        ("", ()),
    ],
)
def test_marked_words_stand_inside_pairs_of_brackets(prompt: str, marked: tuple[str, ...]) -> None:
    assert marked_words(prompt) == marked


OFFENDERS: dict[str, tuple[object, str]] = {
    "list": ([], "the entry is not an object"),
    "null": (None, "the entry is not an object"),
    "no-prompt": ({k: v for k, v in ENTRY.items() if k != "editing_prompt"}, "is missing"),
    "typed-prompt": ({**ENTRY, "original_prompt": 3}, "original_prompt is not a text"),
    "half-pair": ({**ENTRY, "original_prompt": "\ud800"}, "original_prompt is not valid Unicode"),
    "typed-words": ({**ENTRY, "blended_word": None}, "blended_word is not a text"),
    "../up": (ENTRY, "the id is no file name"),
    "..": (ENTRY, "the id is no file name"),
    "a/b": (ENTRY, "the id is no file name"),
    "": (ENTRY, "the id is no file name"),
    "line\n": (ENTRY, "the id is no file name"),
    "x" * 101: (ENTRY, "the id is no file name"),
    "type-ten": ({**ENTRY, "editing_type_id": "10"}, "editing_type_id '10' is none of"),
    "type-arabic": ({**ENTRY, "editing_type_id": "٣"}, "editing_type_id '٣' is none of"),
    "type-number": ({**ENTRY, "editing_type_id": 3}, "editing_type_id is not a text"),
    "absolute": ({**ENTRY, "image_path": "/etc/passwd"}, "'/etc/passwd' leaves"),
    "up": ({**ENTRY, "image_path": "../../outside.png"}, "leaves"),
    "up-and-back": ({**ENTRY, "image_path": "0_random/../0_random/sound.png"}, "leaves"),
    "link": ({**ENTRY, "image_path": "0_random/link.png"}, "leaves"),
    "loop": ({**ENTRY, "image_path": "0_random/loop.png"}, "image_path"),
    "nul": ({**ENTRY, "image_path": "0_random/\0.png"}, "no path of a file"),
    "windows": ({**ENTRY, "image_path": "0_random\\sound.png"}, "write / instead"),
    "long": ({**ENTRY, "image_path": "x" * 5000}, "image_path"),
    "folder": ({**ENTRY, "image_path": "0_random"}, "is missing"),
    "missing": ({**ENTRY, "image_path": "0_random/no.png"}, "no.png is missing"),
    "torn": ({**ENTRY, "image_path": "0_random/torn.png"}, "torn.png cannot be read"),
    "tall": ({**ENTRY, "image_path": "0_random/tall.png"}, "is 8x9, not 8x8"),
    "target": ({**ENTRY, "target_image_path": "../../outside.png"}, "target_image_path"),
    "odd": ({**ENTRY, "mask": [1]}, "odd number"),
    "overlap": ({**ENTRY, "mask": [0, 5, 4, 1]}, "overlaps"),
}


def test_all_offenders_are_reported_at_once(root: Path) -> None:
    write(root, {"sound": ENTRY, **{name: entry for name, (entry, _) in OFFENDERS.items()}})
    with pytest.raises(DataError, match=f"{len(OFFENDERS)} of {len(OFFENDERS) + 1}") as caught:
        load(root)
    reasons = {rejection.sample_id: rejection.reason for rejection in caught.value.rejections}
    assert reasons.keys() == OFFENDERS.keys()
    for name, (_, reason) in OFFENDERS.items():
        assert reason in reasons[name], name
        assert reasons[name] in str(caught.value)
    str(caught.value).encode()  # can be printed

    samples, rejections = load(root, "skip")
    assert [sample.id for sample in samples] == ["sound"]
    assert tuple(rejections) == caught.value.rejections


def test_all_that_is_wrong_with_one_entry_is_said(root: Path) -> None:
    entry = {**ENTRY, "original_prompt": 3, "image_path": "no.png", "mask": "x"}
    with pytest.raises(DataError) as caught:
        load(write(root, {"one": entry}))
    [rejection] = caught.value.rejections
    assert [word in rejection.reason for word in ("original_prompt", "no.png", "mask")] == [
        True
    ] * 3


def test_ids_and_fields_given_twice_are_offenders(root: Path) -> None:
    entry = json.dumps(ENTRY)
    twice = entry[:-1] + ', "mask": []}'
    write(root, f'{{"a": {entry}, "b": {entry}, "a": {entry}, "c": {twice}}}')
    samples, rejections = load(root, "skip")
    assert [sample.id for sample in samples] == ["b"]
    assert [(item.sample_id, item.reason) for item in rejections] == [
        ("a", "the id is given 2 times"),
        ("c", "a field is given twice"),
    ]


def test_a_long_list_of_offenders_is_cut_in_the_message_only(root: Path) -> None:
    with pytest.raises(DataError, match=r"\.\.\. and 20 more$") as caught:
        load(write(root, {f"s{number}": None for number in range(70)}))
    assert len(caught.value.rejections) == 70
    assert str(caught.value).count("\n") == 51


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([], None),
        ([0, 3, 3, 0, 3, 61], None),
        ([63, 10**30], None),
        ([0, 1, 2], "odd number"),
        ([0, 1.0], "not a list of integers"),
        ([0, True], "not a list of integers"),
        (["0", "1"], "not a list of integers"),
        ({"0": 1}, "not a list of integers"),
        ([-1, 2], r"run 0 \(start -1, length 2\) is negative"),
        ([0, -2], "is negative"),
        ([0, 1, 5, 3, 7, 1], r"run 2 .* overlaps or precedes"),
        ([9, 1, 0, 1], "overlaps or precedes"),
        ([60, 9, 63, 1], "overlaps or precedes"),
        ([64, 1], "starts behind the last of the 8x8 pixels"),
    ],
)
def test_the_first_bad_run_is_named(runs: object, problem: str | None) -> None:
    found = check_runs(runs, SIZE, SIZE)
    if problem is None:
        assert found is None
    else:
        with pytest.raises(ValueError, match=problem):
            raise ValueError(found)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"a": NaN', "[" * 100_000, "9" * 5000])
def test_a_mapping_file_that_is_no_object_is_one_error(root: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"mapping_file\.json .*download"):
        load(write(root, text))


def test_what_is_not_there_is_named_with_the_remedy(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"file .*mapping_file\.json .*dataset\.root"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"folder .*pictures .*PnP Inversion"):
        load(write(root, {"one": ENTRY}), image_dir="pictures")


def test_nothing_left_is_an_error_even_when_skipping(root: Path) -> None:
    for mapping in ({}, {"one": None}):
        with pytest.raises(DataError, match="no usable sample"):
            load(write(root, mapping), "skip")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
odd_values = (
    st.sampled_from(["../../outside.png", "0_random/tall.png", "7", "\ud800", "", [0, 64]])
    | st.lists(st.integers(-2, 70), max_size=6)
    | json_values
)
changes = st.dictionaries(st.sampled_from([*ENTRY, "target_image_path"]), odd_values, max_size=2)
entries = changes.map(lambda changed: {**ENTRY, **changed}) | json_values
ids = st.sampled_from(["a", "b", "c", "..", "\u00e9\n"])
mappings = st.dictionaries(ids, entries, max_size=3)


@settings(
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(mappings, st.sampled_from(["raise", "skip"]))
def test_any_mapping_gives_a_table_or_a_data_error(
    root: Path, mapping: dict[str, Any], on_error: str
) -> None:
    write(root, mapping)
    try:
        samples, rejections = load(root, on_error)
    except DataError as error:
        assert on_error == "raise" or len(error.rejections) == len(mapping)
        return
    assert [*samples, *rejections]
    assert len(samples) + len(rejections) == len(mapping)
    assert on_error == "skip" or not rejections
    (root / "samples.parquet").write_bytes(samples_table(samples, EDIT_TYPES))
    assert read_samples(root / "samples.parquet") == (samples, EDIT_TYPES)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real samples are not at {SHARED}")
def test_real_pie_bench_samples_have_the_official_masks() -> None:
    folder = SHARED / "data" / "piebench_mini"
    parsed = load_pie_bench(folder, mask_size=512, border=1, on_error="raise")
    samples = parsed.samples
    official = json.loads((folder / "official_metrics.json").read_text())
    assert parsed.rejections == []
    assert {
        sample.id: from_coco(sample.mask).sum() for sample in samples if sample.mask is not None
    } == {sample_id: metrics["mask_pixels"] for sample_id, metrics in official.items()}
    assert len(samples) == 12
    assert not any(mark in sample.target_prompt for sample in samples for mark in "[]")
    assert len({sample.image_digest for sample in samples}) == 12
    assert all(
        len(bytes.fromhex(sample.image_digest)) == hashlib.sha256().digest_size
        for sample in samples
    )
