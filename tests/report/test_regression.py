"""A worsening is caught, by type and overall; what is harmless is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typed_frames import typed

from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics.column import Column
from piebench_masks.report.regression import (
    changed_rows,
    compare,
    read_baseline,
    series,
    write_baseline,
)

COLUMNS = {
    "lpips_shapes_unedit_part": Column("LPIPS outside", "down", 1e3, role="background"),
    "clip_edited": Column("CLIP edited", "up", role="edit"),
    "psnr": Column("PSNR", "up"),
}
TYPES = [f"Type {letter}" for letter in "jihgfedcba"]
"""Not in the alphabet's order."""
OWN = {"ours": 0.7, "signed": 3.0, "full": 0.5}


@pytest.fixture(scope="module")
def before() -> pd.DataFrame:
    """Twenty samples of each of ten types."""
    draw = np.random.default_rng(0)
    rows = [
        (f"s{n:03d}", n // 20, method, threshold, *draw.uniform(0.3, 0.9, 4))
        for n in range(200)
        for method, threshold in (("none", np.nan), ("ours", 0.7), ("ours", 0.5), ("full", 0.5))
    ]
    names = ["sample", "edit_type", "method", "threshold", "dice", *COLUMNS]
    frame = typed(pd.DataFrame(rows, columns=names), TYPES)
    edits = frame.drop(columns="dice").assign(editor="turbo_edit")
    return series(frame[frame["method"] != "none"], edits, COLUMNS, OWN)


def verdicts(before: pd.DataFrame, now: pd.DataFrame) -> dict[tuple[str, str], str]:
    frame = compare(before, now, {"commit": "abc"}).frame
    frame = frame[frame["verdict"] != "same"]
    keys = zip(frame["series"], frame["edit_type"], strict=True)
    return dict(zip(keys, frame["verdict"], strict=True))


def changed(rows: pd.DataFrame, name: str, by: float, edit_type: str | None = None) -> pd.DataFrame:
    hit = rows["series"].str.startswith(name)
    if edit_type is not None:
        hit &= rows["edit_type"] == edit_type
    noise = np.random.default_rng(1).normal(0, abs(by) / 2, len(rows))
    return rows.assign(value=rows["value"] + hit * (by + noise))


def test_watched_are_learned_methods_at_their_own_thresholds(before: pd.DataFrame) -> None:
    assert set(before["series"]) == {
        "ours: Dice ↑",
        "ours at 0.7: LPIPS outside ×10³ ↓",
        "ours at 0.7: CLIP edited ↑",
        "none: LPIPS outside ×10³ ↓",
        "none: CLIP edited ↑",
    }
    assert (before.groupby("series").size() == 200).all()


def test_a_worsened_method_is_caught_and_no_other_is_blamed(before: pd.DataFrame) -> None:
    found = verdicts(before, changed(before, "ours: Dice", -0.05))
    assert found.pop(("ours: Dice ↑", "Overall")) == "worse"
    assert len(found) >= 8
    assert {name for name, _ in found} == {"ours: Dice ↑"} and set(found.values()) == {"worse"}


def test_a_worsening_of_one_edit_type_is_caught_there(before: pd.DataFrame) -> None:
    found = verdicts(before, changed(before, "ours at 0.7: LPIPS", 0.05, edit_type=TYPES[4]))
    assert found["ours at 0.7: LPIPS outside ×10³ ↓", TYPES[4]] == "worse"
    assert set(found) <= {
        ("ours at 0.7: LPIPS outside ×10³ ↓", where) for where in (TYPES[4], "Overall")
    }


def test_an_improvement_is_no_worsening(before: pd.DataFrame) -> None:
    assert set(verdicts(before, changed(before, "ours at 0.7: CLIP", 0.1)).values()) == {"better"}


def test_order_rounding_and_noise_without_direction_are_harmless(before: pd.DataFrame) -> None:
    assert verdicts(before, before.sample(frac=1, random_state=0)) == {}
    assert verdicts(before, before.assign(value=before["value"] - 1e-7)) == {}
    noisy = [np.random.default_rng(seed).normal(0, 0.02, len(before)) for seed in range(40)]
    alarms = [bool(verdicts(before, before.assign(value=before["value"] + n))) for n in noisy]
    assert sum(alarms) <= 5  # 2 are to be expected at a level of 0.05 for all tests together


def test_what_changed_can_be_had_alone(before: pd.DataFrame) -> None:
    table = compare(before, changed(before, "ours at 0.7: CLIP", 0.1), {"date": "2026-01-02"})
    rows = changed_rows(table)
    assert set(rows.frame["series"]) == {"ours at 0.7: CLIP edited ↑"}
    assert len(rows.cells()) == len(rows.best) < len(table.frame)
    assert rows.title == "Against the baseline of 2026-01-02"
    assert f"same: {len(table.frame) - len(rows.frame)}." in rows.notes[-1]


def test_what_is_missing_now_is_an_error(before: pd.DataFrame) -> None:
    with pytest.raises(BenchmarkError, match=r"1 values .* of sample s000\): .*baseline=update"):
        compare(before, before.drop(index=0), {})
    undefined = before["value"].mask(before["series"] == "none: CLIP edited ↑")
    with pytest.raises(BenchmarkError, match="200 values of the baseline are missing"):
        compare(before, before.assign(value=undefined), {})
    assert verdicts(before.assign(value=undefined), before) == {}


def test_a_baseline_is_read_as_it_was_written(before: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "baselines" / "x.parquet"
    write_baseline(path, before.sample(frac=1, random_state=0), {"commit": "abc"})
    rows, how = read_baseline(path)
    assert how == {"commit": "abc"}
    expected = before.sort_values(["series", "sample"], ignore_index=True)
    expected = expected.drop(columns="edit_type")  # the data set says which type a sample is of
    pd.testing.assert_frame_equal(rows, expected)
    path.write_bytes(b"torn")
    with pytest.raises(BenchmarkError, match="baseline=update"):
        read_baseline(path)


def test_of_several_editors_each_is_watched(before: pd.DataFrame) -> None:
    rows = before[before["series"] == "ours at 0.7: LPIPS outside ×10³ ↓"]
    edits = pd.DataFrame(
        {
            "sample": rows["sample"],
            "edit_type": rows["edit_type"],
            "method": "ours",
            "threshold": 0.7,
            "lpips_shapes_unedit_part": rows["value"],
        }
    )
    both = pd.concat([edits.assign(editor="a"), edits.assign(editor="b")], ignore_index=True)
    found = series(pd.DataFrame(), both, COLUMNS, OWN)
    assert set(found["series"]) == {f"{name}, ours at 0.7: LPIPS outside ×10³ ↓" for name in "ab"}
    assert not found.duplicated(["series", "sample"]).any()
