"""TI2I's mapping file as PnP Inversion ships it: three fields an entry, no masks."""

import json
from pathlib import Path

import pytest
from PIL import Image

from piebench_masks.data.parsed import DataError
from piebench_masks.data.pie_bench import EDIT_TYPES
from piebench_masks.data.ti2i import load_ti2i

KARATE = "ti2i_benchmark/wild-ti2i/data/real_karate.jpeg"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = (tmp_path / "annotation_images" / KARATE).parent
    folder.mkdir(parents=True)
    Image.new("RGB", (32, 24)).save(folder / "real_karate.jpeg")
    return tmp_path


def write(root: Path, **entries: object) -> None:
    (root / "mapping_file_ti2i_benchmark.json").write_text(json.dumps(entries))


def test_entries_have_no_masks_and_perhaps_no_source_prompt(root: Path) -> None:
    write(
        root,
        short={
            "image_path": f"data/annotation_images/{KARATE}",
            "original_prompt": "",
            "editing_prompt": "a photo of a pixar superhero in NYC",
        },
        long={
            "image_path": KARATE,
            "original_prompt": "a man",
            "editing_prompt": "a robot",
            "editing_instruction": "Make him a robot",
            "editing_type_id": "1",
            "blended_word": "man robot",
        },
    )
    parsed = load_ti2i(root, on_error="raise")
    short, long = parsed.samples
    assert parsed.rejections == []
    assert (short.image_path, short.source_prompt, short.mask) == (KARATE, "", None)
    assert (short.edit_type, long.edit_type, long.blended_word) == (
        "Random",
        "Change Object",
        "man robot",
    )
    assert parsed.edit_types == EDIT_TYPES


def test_all_bad_entries_are_named(root: Path) -> None:
    write(root, gone={"image_path": "x.jpg"}, number={"image_path": 3}, nothing=None)
    with pytest.raises(DataError) as caught:
        load_ti2i(root, on_error="raise")
    reasons = {item.sample_id: item.reason for item in caught.value.rejections}
    assert "x.jpg is missing" in reasons["gone"] and "editing_prompt is missing" in reasons["gone"]
    assert "image_path is not a text" in reasons["number"]
    assert "not an object" in reasons["nothing"]
