"""Samples come back from their table exactly as they were written."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piebench_masks.data.entries import SAMPLE_ID
from piebench_masks.data.parsed import DataError
from piebench_masks.data.rle import to_coco
from piebench_masks.data.sample import Sample
from piebench_masks.data.table import read_samples, samples_table

TYPES = ("Season", "Weather", "Time of day")
texts = st.text(st.characters(codec="utf-8"), max_size=20)
ids = st.from_regex(SAMPLE_ID, fullmatch=True)
paths = st.lists(ids, min_size=1, max_size=3).map("/".join)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
samples = st.builds(
    Sample,
    id=ids,
    image_path=paths,
    source_prompt=texts,
    target_prompt=texts,
    instruction=texts,
    edit_type=st.sampled_from(TYPES),
    blended_word=texts,
    mask=st.none() | st.integers(0, 9).map(lambda seed: random_mask(seed)),
    target_image_path=st.none() | paths,
    image_digest=digests,
    target_digest=st.none(),
    source_marked=st.lists(texts, max_size=2).map(tuple),
    target_marked=st.lists(texts, max_size=2).map(tuple),
).flatmap(
    lambda sample: st.builds(
        replace,
        st.just(sample),
        target_digest=digests if sample.target_image_path else st.none(),
    )
)


def random_mask(seed: int) -> object:
    return to_coco(np.random.default_rng(seed).random((seed + 1, 7)) < 0.5)


@given(st.lists(samples, max_size=4))
def test_samples_come_back_unchanged(written: list[Sample]) -> None:
    with tempfile.TemporaryDirectory(prefix="a=b") as folder:
        path = Path(folder) / "samples.parquet"
        path.write_bytes(samples_table(written, TYPES))
        assert read_samples(path) == (written, TYPES)


def test_a_missing_table_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s\.parquet cannot be read .* run the parse stage again"):
        read_samples(tmp_path / "s.parquet")


def test_a_damaged_table_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    path.write_bytes(samples_table([], TYPES)[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(path)


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "../x"},
        {"image_path": "../x.png"},
        {"image_path": "/etc/passwd"},
        {"target_image_path": "a/../../x"},
        {"edit_type": "Style"},
        {"image_digest": "../../x"},
        {"target_image_path": "b.png", "target_digest": None},
        {"mask": {"size": [2**31 - 1, 2**31 - 1], "counts": "0"}},
        {"mask": {"size": [8], "counts": "0"}},
    ],
    ids=str,
)
def test_a_forged_table_cannot_name_what_lies_outside(
    tmp_path: Path, change: dict[str, object]
) -> None:
    sound = Sample("s", "a.png", "", "", "", "Season", "", None, None, "0" * 64)
    path = tmp_path / "s.parquet"
    path.write_bytes(samples_table([sound], TYPES))
    assert read_samples(path) == ([sound], TYPES)
    path.write_bytes(samples_table([replace(sound, **change)], TYPES))
    with pytest.raises(DataError, match="is none that the parse stage writes"):
        read_samples(path)


def test_an_altered_table_counts_as_damaged(tmp_path: Path) -> None:
    sound = Sample("s", "a.png", "a cat", "a dog", "", "Season", "", None, None, "0" * 64)
    path = tmp_path / "s.parquet"
    path.write_bytes(samples_table([sound], TYPES).replace(b"a cat", b"a bat"))
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(path)


def test_a_table_of_something_else_is_one_clear_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "s.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(tmp_path / "s.parquet")


@pytest.mark.parametrize("label", ["Overall", "", "a\nb", " x", 3])
def test_a_forged_table_cannot_bring_types_that_tables_could_not_show(
    tmp_path: Path, label: str
) -> None:
    path = tmp_path / "s.parquet"
    path.write_bytes(samples_table([], [label]))
    with pytest.raises(DataError, match="its edit types are none that tables can show"):
        read_samples(path)


def test_the_order_of_the_types_cannot_be_altered(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    path.write_bytes(samples_table([], ("Ab", "Cd")).replace(b'["Ab", "Cd"]', b'["Cd", "Ab"]'))
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(path)
