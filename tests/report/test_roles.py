"""Columns are asked what they stand for; nobody reads their names, nor those of edit types."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typed_frames import typed

from piebench_masks.metrics.column import Column
from piebench_masks.report.charts import figures
from piebench_masks.report.edit_tables import editing_table
from piebench_masks.report.finished import Scores, result_tables, summary
from piebench_masks.report.gallery import contact_sheet, select_samples
from piebench_masks.report.published import Setting, published_tables
from piebench_masks.report.regression import compare, series
from piebench_masks.report.sweep import sweep_table
from piebench_masks.report.table import Table
from piebench_masks.tracking.finished import native_plots, summary_metrics

COLUMNS = {
    "psnr_unedit_part": Column("PSNR outside", "up", part="outside"),
    "lpips": Column("LPIPS", "down", 1e3, role="background", headline=False),
    "lpips_unedit_part": Column("LPIPS outside", "down", 1e3, role="background", part="outside"),
    "clip_whole": Column("CLIP whole", "up", role="edit"),
    "clip_edited": Column("CLIP edited", "up", role="edit", part="inside"),
    "target_error": Column(
        "Error to target", "down", digits=3, statistic="median", role="target", part="inside"
    ),
}
SCORES = ["dice", "precision", "recall", "iou", "area", "annotated", "boundary_iou", "constant"]
EDIT = ["editor", "method", "threshold", "mask_source", "mask_area", "nfe_inverse", "nfe_forward"]
NONSENSE = {
    name: f"{letter}{letter}_psnr_edited" for name, letter in zip(COLUMNS, "zyxwvu", strict=True)
}
TYPES = ["Recolour", "Swap", "Age"]
"""A data set's own, whose order is not the alphabet's."""


@pytest.fixture(scope="module")
def scores() -> Scores:
    """Two editors, a learned method at three thresholds, a trivial mask, three types."""
    draw = np.random.default_rng(4)
    grid = [("ours", at, "predicted") for at in (0.25, 0.5, 0.75)] + [("full", 0.5, "predicted")]
    ids = [f"s{n:02d}" for n in range(12)]
    masks = pd.DataFrame(
        [(s, int(s[1:]) % 3, m, at, *draw.random(len(SCORES))) for s in ids for m, at, _ in grid],
        columns=["sample", "edit_type", "method", "threshold", *SCORES],
    )
    edits = pd.DataFrame(
        [
            (s, int(s[1:]) % 3, editor, *variant, draw.random(), 5, 6, *draw.random(len(COLUMNS)))
            for editor in ("one", "two")
            for s in ids
            for variant in [("none", np.nan, "none"), *grid]
        ],
        columns=["sample", "edit_type", *EDIT, *COLUMNS],
    )
    defaults = {"ours": 0.5, "full": 0.5}
    map_costs = pd.DataFrame(columns=["method", "unet_rows", "forwards", "seconds"])
    return Scores(
        typed(masks, TYPES), typed(edits, TYPES), pd.DataFrame(), map_costs, COLUMNS, defaults
    )


def renamed(scores: Scores) -> Scores:
    """The same run, whose metrics call their columns something else."""
    columns = {NONSENSE[name]: column for name, column in scores.columns.items()}
    return replace(scores, edits=scores.edits.rename(columns=NONSENSE), columns=columns)


def same_table(table: Table, other: Table) -> None:
    frame = table.frame.rename(columns=NONSENSE)
    frame.columns = [
        next((new + c[len(old) :] for old, new in NONSENSE.items() if c in ends(old)), c)
        for c in frame
    ]
    pd.testing.assert_frame_equal(frame, other.frame, check_names=False)
    assert table.cells() == other.cells() and table.notes == other.notes
    assert [f.header for f in table.formats.values()] == [f.header for f in other.formats.values()]
    assert len(table.best) == len(other.best)


def ends(name: str) -> set[str]:
    return {f"{name}_low", f"{name}_high", f"{name}_n"}


def test_renamed_columns_give_the_same_tables_and_figures(scores: Scores) -> None:
    other = renamed(scores)
    tables, others = result_tables(scores), result_tables(other)
    assert set(tables) == set(others) >= {"editing", "editors", "mask_methods", "thresholds"}
    for name, table in tables.items():
        same_table(table, others[name])
    drawn = figures(scores.masks, scores.edits, scores.columns)
    assert set(drawn) == {"pareto", "pareto_1_one", "pareto_2_two", "dice"}
    assert drawn == figures(other.masks, other.edits, other.columns)
    assert summary(scores, 12) == summary(other, 12)


def test_renamed_columns_are_watched_and_published_alike(scores: Scores) -> None:
    other = renamed(scores)
    before, now = (
        series(one.masks, one.edits, one.columns, one.defaults) for one in (scores, other)
    )
    pd.testing.assert_frame_equal(before, now)
    labels = {name.partition(": ")[2] for name in before["series"]}
    expected = {"Dice ↑", "LPIPS outside ×10³ ↓", "CLIP edited ↑", "Error to target ↓"}
    assert labels == expected
    tables = {stem: table.frame for stem, table in result_tables(scores).items()}
    others = {stem: table.frame for stem, table in result_tables(other).items()}
    metrics = summary_metrics(tables, scores.columns)
    assert list(metrics.values()) == list(summary_metrics(others, other.columns).values())
    assert metrics["dice/ours/swap"] and "dice/ours/overall" not in metrics
    for name, plot in native_plots(figures(scores.masks, scores.edits, scores.columns)).items():
        again = native_plots(figures(other.masks, other.edits, other.columns))[name]
        pd.testing.assert_frame_equal(plot.frame, again.frame)


def test_roles_are_chosen_as_far_as_there_are_values(scores: Scores) -> None:
    unannotated = ["psnr_unedit_part", "lpips_unedit_part", "clip_edited", "target_error"]
    edits = scores.edits.assign(**dict.fromkeys(unannotated, np.nan))
    chart = figures(pd.DataFrame(), edits, COLUMNS)["pareto"].charts[0]
    assert (chart.x, chart.y) == ("LPIPS ×10³ ↓", "CLIP whole ↑")
    table = editing_table(edits, COLUMNS, scores.defaults)
    assert [table.column_of(r) for r in ("background", "edit", "target")] == [
        *("lpips", "clip_whole"),
        None,
    ]
    assert set(figures(pd.DataFrame(), edits, {})) == set()


def test_a_sweep_collects_what_stands_for_a_role(scores: Scores) -> None:
    runs = pd.DataFrame(
        {"strength": [0.1, 0.2], "method": "ours", "threshold": 0.5, "dice": [0.3, 0.4]}
    )
    runs["xx"] = [1.0, 2.0]
    table = sweep_table(runs, ["strength"], ["xx"], Counter())
    assert list(table.frame["xx"]) == [1, 2] and "xx" in table.formats


def test_types_are_those_of_the_data_set_in_its_order(scores: Scores, gallery_row) -> None:
    table = result_tables(scores)["dice_by_edit_type"]
    assert list(table.frame["edit_type"]) == [*TYPES, "Overall"]
    picked = select_samples(scores.masks, {"ours": 0.5})
    assert list(picked["edit_type"])[::3] == TYPES
    rows = [replace(gallery_row, edit_type=label) for label in TYPES]
    assert contact_sheet(rows).size
    now = series(scores.masks, scores.edits, scores.columns, scores.defaults)
    verdicts = compare(now.drop(columns="edit_type"), now, {}).frame
    assert list(verdicts["edit_type"][:4]) == ["Overall", *TYPES]
    setting = Setting("mine", "sdxl_turbo", dict.fromkeys(TYPES, 4), "reference")
    tables = published_tables(scores.masks, scores.edits, COLUMNS, {"ours": 0.5}, setting)
    dice = tables["published_dice"]
    assert "the data are mine, not PIE-Bench v1" in dice.notes[0]
    assert list(dice.frame["what"]) == ["Overall, ours"]


def test_an_infinite_value_is_left_out_everywhere_and_counted(scores: Scores) -> None:
    edits = scores.edits.copy()
    hit = (edits["method"] == "ours") & (edits["threshold"] == 0.5) & (edits["sample"] == "s03")
    edits.loc[hit, "psnr_unedit_part"] = np.inf
    table = editing_table(edits, COLUMNS, {"ours": 0.5})
    row = table.frame[(table.frame["editor"] == "one") & (table.frame["method"] == "ours")].iloc[0]
    used = edits[(edits["editor"] == "one") & (edits["method"] == "ours") & ~hit]
    mean = used.loc[used["threshold"] == 0.5, "psnr_unedit_part"].mean()
    assert row["psnr_unedit_part"] == pytest.approx(mean)
    low, high = row["psnr_unedit_part_low"], row["psnr_unedit_part_high"]
    assert low < row["psnr_unedit_part"] < high
    assert any("PSNR outside: 2 of" in note for note in table.notes)
    assert not any("inf" in cell for cells in table.cells() for cell in cells)
    only = edits.assign(editor="turbo_edit")[edits["editor"] == "one"]
    setting = Setting("pie_bench", "sdxl_turbo", {}, "reference")
    published = published_tables(pd.DataFrame(), only, COLUMNS, {"ours": 0.5}, setting)
    frame = published["published_editing"].frame.set_index(["what", "score"])
    assert frame.loc[("TurboEdit with ours", "PSNR outside ↑"), "ours"] == pytest.approx(mean)
