"""PIE-Bench++ as it lies in its Hugging Face repository, written here with the same columns."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from piebench_masks.data.parsed import DataError
from piebench_masks.data.pie_bench import EDIT_TYPES, load_pie_bench
from piebench_masks.data.pie_bench_pp import unpack_pie_bench_pp
from piebench_masks.data.rle import from_coco

CONFIGURATIONS = (
    "0_random_140",
    "1_change_object_80",
    "2_add_object_80",
    "3_delete_object_80",
    "4_change_attribute_content_40",
    "5_change_attribute_pose_40",
    "6_change_attribute_color_40",
    "7_change_attribute_material_40",
    "8_change_background_80",
    "9_change_style_80",
)
SCHEMA = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "id": pa.string(),
        "source_prompt": pa.string(),
        "target_prompt": pa.string(),
        "edit_action": pa.string(),
        "aspect_mapping": pa.string(),
        "blended_words": pa.string(),
        "mask": pa.string(),
    }
)


def row(number: int, **fields: Any) -> dict[str, Any]:
    picture = io.BytesIO()
    Image.new("RGB", (16, 16), (20 * number % 256, 0, 0)).save(picture, "JPEG")
    return {
        "image": {"bytes": picture.getvalue(), "path": None},
        "id": f"{number:012d}",
        "source_prompt": "a cat sitting on a wooden chair",
        "target_prompt": "a [red] [dog] sitting on a [metal] chair",
        "edit_action": "{'dog': {'position': 1, 'edit_type': 1, 'action': 'cat'}}",
        "aspect_mapping": "{'dog': ['red']}",
        "blended_words": "['cat,dog']",
        "mask": "0 4 32 300",
    } | fields


def write(source: Path, configuration: str, *rows: dict[str, Any]) -> None:
    (source / configuration).mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), SCHEMA)
    pq.write_table(table, source / configuration / "V1-00000-of-00001.parquet")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number, configuration in enumerate(CONFIGURATIONS):
        write(tmp_path / "hub", configuration, row(number))
    return tmp_path / "hub"


def load(root: Path, on_error: Any = "raise") -> tuple[list[Any], list[Any]]:
    parsed = load_pie_bench(root, mask_size=16, border=0, on_error=on_error)
    return parsed.samples, parsed.rejections


def test_ten_configurations_become_one_folder_in_pie_benchs_form(
    source: Path, tmp_path: Path
) -> None:
    unpack_pie_bench_pp(tmp_path / "bench", source=source)
    samples, rejections = load(tmp_path / "bench")
    assert rejections == []
    assert [sample.edit_type for sample in samples] == list(EDIT_TYPES)
    assert samples[3].image_path == "3_delete_object_80/000000000003.jpg"
    assert samples[0].target_prompt == "a red dog sitting on a metal chair"
    assert from_coco(samples[0].mask).sum() == 4 + (256 - 32)
    assert len({sample.image_digest for sample in samples}) == 10


def test_bad_rows_are_left_to_the_loader_which_names_them_all(source: Path, tmp_path: Path) -> None:
    bad = [
        row(1),
        row(2, id="../escape"),
        row(103, mask="0 four"),
        row(104, mask="0 4 2"),
        row(105, image=None),
        row(106, source_prompt=None),
    ]
    write(source, CONFIGURATIONS[0], *bad)
    unpack_pie_bench_pp(tmp_path / "bench", source=source)
    assert not list(tmp_path.glob("*escape*"))
    _, rejections = load(tmp_path / "bench", "skip")
    reasons = {item.sample_id: item.reason for item in rejections}
    for sample_id, words in {
        "000000000001": "given 2 times",
        "../escape": "no file name",
        "000000000103": "not a list of integers",
        "000000000104": "odd number",
        "000000000105": "is missing",
        "000000000106": "original_prompt is not a text",
    }.items():
        assert words in reasons[sample_id]


def test_a_configuration_that_is_not_there_is_named_and_nothing_is_left(
    source: Path, tmp_path: Path
) -> None:
    (source / CONFIGURATIONS[7] / "V1-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"configurations 7_\*: download all"):
        unpack_pie_bench_pp(tmp_path / "bench", source=source)
    (source / CONFIGURATIONS[7] / "V1-00000-of-00001.parquet").write_bytes(b"torn")
    with pytest.raises(DataError, match="download it again"):
        unpack_pie_bench_pp(tmp_path / "bench", source=source)
    assert not (tmp_path / "bench").exists()
