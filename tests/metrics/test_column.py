"""What a column stands for, how it is summed up, and that it is stored with all it says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics import Metric, all_columns, segmentation
from piebench_masks.metrics.clip import Clip
from piebench_masks.metrics.column import (
    SUFFIXES,
    Column,
    column_of,
    read_columns,
    write_columns,
)
from piebench_masks.metrics.lpips import Lpips
from piebench_masks.metrics.pixel import Pixel
from piebench_masks.metrics.structure import Structure
from piebench_masks.metrics.target_error import TargetError

METRICS: dict[str, Metric] = {
    "pixel": Pixel(),
    "distance": Lpips("first"),
    "agreement": Clip("second"),
    "structure": Structure(),
    "target": TargetError(),
}
COLUMNS = all_columns(METRICS)
PSNR = Pixel().columns[f"psnr{SUFFIXES['outside']}"]


def test_an_infinite_value_is_left_out_of_the_mean_and_counted() -> None:
    values = [30.0, np.inf, np.nan, 20.0, 25.0]
    assert PSNR.summarise(values) == 25
    assert PSNR.note(values) == (
        "PSNR outside: 1 of 4 edits leave that part of the picture exactly as it was; they are "
        "left out of the mean and its interval."
    )
    assert PSNR.note([30.0, np.nan]) == ""
    assert np.isnan(PSNR.summarise([np.inf, np.nan])) and np.isnan(PSNR.summarise([]))


def test_a_column_of_anyone_has_a_note_too() -> None:
    other = Column("Mine", "down", statistic="median")
    assert other.summarise([1.0, -np.inf, 9.0, 2.0]) == 2
    assert other.note([1.0, -np.inf]).startswith("Mine: 1 of 2 values are infinite; they are left")


@given(st.lists(st.floats(-1e6, 1e6) | st.just(np.nan), min_size=1, max_size=50))
def test_means_and_medians_are_those_of_pandas_whatever_the_order(values: list[float]) -> None:
    for statistic in ("mean", "median"):
        column = Column("Mine", "up", statistic=statistic)
        expected = pd.Series(values).agg(statistic)
        np.testing.assert_allclose(column.summarise(values), expected, rtol=0, atol=1e-8)
        np.testing.assert_array_equal(column.summarise(values[::-1]), column.summarise(values))


def test_roles_are_found_whatever_the_columns_are_called() -> None:
    assert column_of("background", COLUMNS, COLUMNS) == "first_unedit_part"
    assert column_of("edit", COLUMNS, COLUMNS) == "second_edited"
    assert column_of("target", COLUMNS, COLUMNS) == "target_error"
    assert column_of("cost", COLUMNS, COLUMNS) is None


def test_without_annotated_masks_the_whole_picture_stands_for_the_roles() -> None:
    valued = [name for name, column in COLUMNS.items() if column.part == "whole"]
    assert column_of("background", COLUMNS, valued) == "first"
    assert column_of("edit", COLUMNS, valued) == "second_whole"
    assert column_of("target", COLUMNS, valued) is None
    assert column_of("edit", COLUMNS, []) is None


def test_of_equals_the_first_stands_and_headlines_stand_before_others() -> None:
    outside = COLUMNS["first_unedit_part"]
    columns = {"hidden": replace(outside, headline=False), "a": outside, "b": outside}
    assert column_of("background", columns, columns) == "a"


@pytest.mark.parametrize("name", [*COLUMNS, *segmentation.COLUMNS])
def test_every_column_is_explained_in_one_sentence(name: str) -> None:
    meaning = (COLUMNS | segmentation.COLUMNS)[name].meaning
    assert meaning[0].isupper() and meaning.endswith(".") and ". " not in meaning


def test_parts_have_labels_and_meanings_of_their_own() -> None:
    shown = {part: Pixel().columns[f"ssim{suffix}"] for part, suffix in SUFFIXES.items()}
    assert [column.label for column in shown.values()] == ["SSIM", "SSIM outside", "SSIM inside"]
    assert [column.part for column in shown.values()] == [*shown]
    assert len({column.meaning for column in shown.values()}) == 3


def test_columns_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "columns.json"
    write_columns(path, COLUMNS)
    assert list(read_columns(path).items()) == list(COLUMNS.items())


@pytest.mark.parametrize("damaged", [None, "", "[]", '{"psnr": 1}', '{"psnr": {"label": "x"}}'])
def test_columns_that_cannot_be_read_are_one_clear_error(
    tmp_path: Path, damaged: str | None
) -> None:
    path = tmp_path / "columns.json"
    if damaged is not None:
        path.write_text(damaged)
    with pytest.raises(BenchmarkError, match=r"columns\.json does not say .* run the report stage"):
        read_columns(path)
