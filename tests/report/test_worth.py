"""Do better masks make better edits: correlations against scipy, gains against differences."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from typed_frames import typed

from piebench_masks.metrics.column import Column
from piebench_masks.report.statistics import difference_interval, rank_correlation
from piebench_masks.report.worth import (
    FEWEST,
    gains,
    worth_figure,
    worth_sentences,
    worth_table,
)

COLUMNS = {
    "lpips": Column("LPIPS outside", "down", 1e3, role="background"),
    "target": Column("Error to target", "down", role="target"),
}


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_spearmans_correlation(ties: bool) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 300))
    y = x + y
    if ties:
        x, y = x.round(), y.round()
    value, low, high = rank_correlation(x, y, np.repeat(np.arange(60), 5))
    assert value == pytest.approx(spearmanr(x, y).statistic)
    assert low < value < high and high - low < 0.3


def test_rows_of_one_sample_are_drawn_together() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 40))
    y = x + y
    alone = rank_correlation(x, y, np.arange(40))
    copies = rank_correlation(x.repeat(50), y.repeat(50), np.arange(40).repeat(50))
    np.testing.assert_allclose(copies, alone, atol=0.02)  # copies add no certainty
    assert np.isnan(rank_correlation(np.ones(9), draw.normal(size=9), np.arange(9))).all()


def test_the_interval_of_a_difference_is_paired() -> None:
    draw = np.random.default_rng(0)
    first = draw.normal(0, 100, 50)
    second = first + 1 + draw.normal(0, 0.1, 50)
    low, high = difference_interval(first, second)
    assert 0.9 < low < 1 < high < 1.1
    second[3] = np.inf
    assert np.isfinite(difference_interval(first, second)).all()
    assert np.isnan(difference_interval(first, np.full(50, np.nan))).all()


@pytest.fixture
def scores() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sixty samples whose edits under masks keep the background the better, the higher the Dice,
    and come the less near to the target.
    """
    draw = np.random.default_rng(0)
    masks, edits = [], []
    for n in range(60):
        edits.append((f"s{n}", n % 2, "none", np.nan, 0.3, 0.5))
        for method in ("ours", "full"):
            for threshold in (0.2, 0.4):
                dice = draw.uniform()
                masks.append((f"s{n}", n % 2, method, threshold, dice))
                lpips = 0.3 - 0.1 * dice + draw.normal(0, 0.01)
                edits.append((f"s{n}", n % 2, method, threshold, lpips, 0.5 + dice))
    keys = ["sample", "edit_type", "method", "threshold"]
    mask_frame = typed(pd.DataFrame(masks, columns=[*keys, "dice"]))
    edit_frame = typed(pd.DataFrame(edits, columns=[*keys, *COLUMNS]))
    return mask_frame, edit_frame.assign(editor="turbo_edit")


def test_gains_are_over_the_edit_without_a_mask(
    scores: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    found = gains(*scores, COLUMNS)
    assert list(found) == list(COLUMNS)
    rows = found["lpips"]
    assert set(rows["method"]) == {"ours"} and len(rows) == 120
    masks, edits = scores
    row = rows.iloc[0]
    edit = edits[(edits["sample"] == row["sample"]) & (edits["method"] == "ours")]
    assert row["gain"] in list(1e3 * (0.3 - edit["lpips"]))
    assert row["dice"] in list(masks["dice"])
    assert gains(masks.iloc[:0], edits, COLUMNS) == {}


def test_the_answer_is_given_by_type_overall_and_in_a_sentence(
    scores: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    found = gains(*scores, COLUMNS)
    frame = worth_table(found, COLUMNS).frame.set_index("edit_type")
    assert list(frame.index) == ["Random", "Change Object", "Overall"]
    assert list(frame["lpips_n"]) == [30, 30, 60]
    assert frame.loc["Overall", "lpips_low"] > 0.8
    assert frame.loc["Overall", "target"] == pytest.approx(-1)
    [sentence] = worth_sentences(found, COLUMNS)
    assert "by turbo_edit?" in sentence and "n = 60" in sentence
    assert "LPIPS outside: yes" in sentence and "Error to target: no, on the contrary" in sentence
    figure = worth_figure(found, COLUMNS)
    assert [chart.y for chart in figure.charts] == [
        "gain in LPIPS outside over no mask",
        "gain in Error to target over no mask",
    ]
    [series] = figure.charts[0].series
    (low, high) = figure.charts[0].limits[1] or (0, 0)
    assert len(series.points) == 10 and 110 <= len(series.dots) < 120
    assert all(low < y < high for _, y in series.dots)


def test_each_score_counts_the_samples_that_have_it_and_few_give_no_answer(
    scores: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    masks, edits = scores
    first = set(list(masks["sample"].unique())[: FEWEST - 1])
    few = edits.assign(target=edits["target"].where(edits["sample"].isin(first)))
    found = gains(masks, few, COLUMNS)
    overall = worth_table(found, COLUMNS).frame.iloc[-1]
    assert (overall["lpips_n"], overall["target_n"]) == (60, FEWEST - 1)
    assert overall["lpips"] > 0.8 and np.isnan(overall["target"])
    [sentence] = worth_sentences(found, COLUMNS)
    assert "LPIPS outside: yes" in sentence
    assert "Error to target: too few samples to say (19, of 20 at least)" in sentence


def test_editors_are_answered_for_one_by_one(scores: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    masks, edits = scores
    other = edits.assign(editor="other", lpips=-edits["lpips"])  # gains turn into losses
    found = gains(masks, pd.concat([edits, other], ignore_index=True), COLUMNS)
    first, second = worth_sentences(found, COLUMNS)
    assert "by turbo_edit?" in first and "LPIPS outside: yes" in first
    assert "by other?" in second and "LPIPS outside: no, on the contrary" in second
    frame = worth_table(found, COLUMNS).frame
    assert list(frame["editor"]) == ["turbo_edit", "other"]
    assert frame["lpips"].to_list() == pytest.approx([0.94, -0.94], abs=0.01)
    figure = worth_figure(found, COLUMNS)
    assert [series.name for series in figure.charts[0].series] == ["turbo_edit", "other"]
