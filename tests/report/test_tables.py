from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from piebench_masks.metrics.column import Column
from piebench_masks.report.charts import pareto_figure
from piebench_masks.report.edit_tables import cost_table, editing_table, editor_table
from piebench_masks.report.mask_tables import dice_table, method_table, threshold_table
from piebench_masks.report.methods import at_thresholds, best_thresholds, leak_levels
from piebench_masks.report.names import edit_names, header
from piebench_masks.report.pareto import pareto_points
from piebench_masks.report.table import Format, Table


def slow_mean(frame: pd.DataFrame, score: str, **wanted: object) -> float:
    values = [
        row[score]
        for row in frame.to_dict("records")
        if all(row[key] == value for key, value in wanted.items()) and not np.isnan(row[score])
    ]
    return sum(values) / len(values) if values else np.nan


def test_best_threshold_is_that_of_the_highest_mean_dice(segmentation):
    chosen = best_thresholds(segmentation)
    for method in ("ours", "signed"):
        grid = segmentation.loc[segmentation["method"] == method, "threshold"].unique()
        means = {t: slow_mean(segmentation, "dice", method=method, threshold=t) for t in grid}
        assert chosen[method] == max(means, key=means.__getitem__)


def test_dice_table_has_the_papers_rows_and_means_over_samples(segmentation):
    table = dice_table(segmentation)
    chosen = best_thresholds(segmentation)
    labels = ["Random", "Change Object", "Change Attribute Content"]
    assert list(table.frame["edit_type"]) == [*labels, "Overall"]
    assert list(table.frame["n"]) == [6, 12, 6, 24]
    assert list(table.formats)[2:] == ["ours", "signed", "full", "oracle"]
    for method in ("ours", "signed", "full"):
        at_best = {"method": method, "threshold": chosen[method]}
        for row, edit_type in enumerate(labels):
            expected = slow_mean(segmentation, "dice", edit_type=edit_type, **at_best)
            assert table.frame[method][row] == pytest.approx(expected)
        overall = slow_mean(segmentation, "dice", **at_best)
        assert table.frame[method][3] == pytest.approx(overall)


def test_of_a_single_edit_type_the_dice_table_has_the_overall_row_only(segmentation):
    table = dice_table(segmentation[segmentation["edit_type"] == "Random"])
    assert list(table.frame["edit_type"]) == ["Overall"] and list(table.frame["n"]) == [6]


def test_fixed_thresholds_are_found_despite_rounding_and_are_named(segmentation):
    table = dice_table(segmentation, {"ours": 0.7, "signed": 3.0})
    grid_value = np.linspace(0, 1, 21)[14]
    assert grid_value != 0.7
    expected = slow_mean(segmentation, "dice", method="ours", threshold=grid_value)
    assert table.frame["ours"][3] == pytest.approx(expected)
    assert "fixed in advance): ours 0.7, signed 3." in table.notes[0]


def test_a_threshold_that_was_not_computed_is_an_error_that_says_which_were(segmentation):
    with pytest.raises(ValueError, match=r"ours: no results at threshold 0\.72; choose .* 0\.7,"):
        dice_table(segmentation, {"ours": 0.72, "signed": 3.0})


def test_oracle_never_ranks(segmentation, editing, columns):
    dice = dice_table(segmentation)
    assert {name for _, name in dice.best} <= {"ours", "signed", "full"}
    assert len({row for row, _ in dice.best}) == len(dice.frame)
    edited = editing_table(editing, columns, {"ours": 0.5})
    assert edited.frame["mask_source"].iloc[-1] == "oracle"
    assert edited.frame["lpips_unedit_part"].idxmin() == len(edited.frame) - 1
    assert len(edited.best) == 2
    assert len(edited.frame) - 1 not in {row for row, _ in edited.best}
    assert edited.sections == {len(edited.frame) - 1}
    assert edited.muted == edited.sections
    methods = method_table(segmentation)
    assert {methods.frame["method"][row] for row in methods.muted} == {"full", "oracle"}


def test_bounds_close_the_editing_table_and_never_rank(editing, columns):
    bounds = [
        editing[editing["method"] == "none"].assign(editor=name, method=name, **scores)
        for name, scores in (
            ("identity", {"lpips_unedit_part": 0.0}),
            ("target", dict.fromkeys(columns, 100.0)),
        )
    ]
    rows = pd.concat([editing, *bounds], ignore_index=True)
    table = editing_table(rows, columns, {"ours": 0.5})
    assert table.frame["method"].to_list()[-2:] == ["identity", "target"]
    assert {*table.frame.index[-2:]} <= table.muted
    assert table.best == editing_table(editing, columns, {"ours": 0.5}).best
    assert "identity, the source as it is" in " ".join(table.notes)
    front = pareto_points(rows, columns, "lpips_unedit_part", "clip_edited").set_index("method")
    assert not front.loc[["identity", "target"], "front"].any() and front["front"].any()
    assert edit_names(table.frame).to_list()[-2:] == ["identity", "target"]
    [chart] = pareto_figure(rows, columns, "lpips_unedit_part", "clip_edited").charts
    looks = {series.name: series.look for series in chart.series}
    assert looks["identity"] == "identity" and looks["target"] == "target"


def test_trivial_masks_never_rank_and_a_lone_or_equal_value_is_not_best(
    segmentation, editing, columns
):
    full = segmentation["method"] == "full"
    segmentation = segmentation.assign(dice=segmentation["dice"].where(~full, 1.0))
    assert {method for _, method in dice_table(segmentation).best} <= {"ours", "signed"}
    lone = dice_table(segmentation[segmentation["method"].isin(["ours", "full"])])
    assert lone.best == frozenset()
    same = editing.assign(**dict.fromkeys(columns, 0.5))
    assert editing_table(same, columns, best_thresholds(segmentation)).best == frozenset()


def test_editing_table_says_which_scores_fewer_samples_have(segmentation, editing, columns):
    name = next(iter(columns))
    some = editing.assign(**dict.fromkeys(columns, 0.5))
    some.loc[some["sample"] == some["sample"].iloc[0], name] = np.nan
    notes = editing_table(some, columns, best_thresholds(segmentation)).notes
    count = some["sample"].nunique() - 1
    assert f"Samples that have a value, where not all: {count} for {columns[name].label}." in notes


def test_editing_table_leaves_missing_values_out_and_scales_what_it_shows(editing, columns):
    table = editing_table(editing, columns, {"ours": 0.5})
    ours = list(table.frame["method"]).index("ours")
    expected = slow_mean(editing, "lpips_unedit_part", method="ours", threshold=0.5)
    assert table.frame["lpips_unedit_part"][ours] == pytest.approx(expected)
    assert table.cells()[ours][-3:] == [
        f"{expected * 1e3:.2f}",
        f"{slow_mean(editing, 'clip_edited', method='ours', threshold=0.5):.2f}",
        "11 [5, 6]",
    ]
    assert [shown.header for shown in table.formats.values()][-3:] == [
        "LPIPS outside ×10³ ↓",
        "CLIP edited ↑",
        "NFE [inverse, forward]",
    ]


def test_edits_made_elsewhere_have_no_cost(editing, columns):
    alone = editing.assign(nfe_inverse=np.nan, nfe_forward=np.nan)
    assert not any(
        "NFE" in f.header for f in editing_table(alone, columns, {"ours": 0.5}).formats.values()
    )
    beside = editing_table(
        pd.concat([editing, alone.assign(editor="they")]), columns, {"ours": 0.5}
    )
    cells = {(row[0], row[1]): row[-1] for row in beside.cells()}
    assert cells["turbo_edit", "ours"] == "11 [5, 6]"
    assert cells["they", "ours"] == "–"


def test_cost_is_summed_up_by_editor():
    costs = pd.DataFrame(
        {"editor": ["b", "b", "a"], "nfe_inverse": [5, 5, 2], "nfe_forward": [6, 1, 0]}
    )
    costs = costs.assign(seconds_inverse=0.25, seconds_forward=[0.5, 1.0, 0.0])
    table = cost_table(costs)
    assert any("equal masks are one edit here" in note for note in table.notes)
    assert table.cells() == [
        ["b", "2", "5.0", "3.5", "8.5", "0.250", "0.750", "1.000"],
        ["a", "1", "2.0", "0.0", "2.0", "0.250", "0.000", "0.250"],
    ]
    fitted = cost_table(costs.assign(backward=[4.0 * (name == "b") for name in costs["editor"]]))
    assert [*fitted.formats].index("backward") == [*table.formats].index("seconds_inverse")
    assert [row[5] for row in fitted.cells()] == ["4.0", "0.0"]
    assert [*cost_table(costs.assign(backward=0.0)).formats] == [*table.formats]


def test_editors_stand_beside_masks_the_best_mask_of_each_marked(editing, columns):
    other = editing.assign(editor="b", clip_edited=editing["clip_edited"] / 2)
    table = editor_table(pd.concat([editing, other]), columns, {"ours": 0.5})
    assert list(table.formats) == ["score", "editor", "none", "ours", "oracle"]
    assert list(table.frame["editor"]) == ["turbo_edit", "b"] * 2
    assert "equal ones as rounded here" in table.notes[0]
    assert list(table.frame["score"]) == ["LPIPS outside ×10³ ↓"] * 2 + ["CLIP edited ↑"] * 2
    assert table.frame["ours"][0] == pytest.approx(
        1e3 * slow_mean(editing, "lpips_unedit_part", method="ours", threshold=0.5)
    )
    assert table.frame["none"][3] == pytest.approx(table.frame["none"][2] / 2)
    for row, name in table.best:
        values = table.frame.loc[row, ["none", "ours"]]
        assert values[name] == (values.min() if row < 2 else values.max())
    assert {row for row, _ in table.best} == {0, 1, 2, 3} and table.sections == {2}


def test_thresholds_are_chosen_in_four_ways(segmentation):
    table = threshold_table(segmentation, {"ours": 0.72, "signed": 3.0})
    assert list(table.frame["method"]) == ["ours", "signed"]
    rows = table.frame.set_index("method")
    best = best_thresholds(segmentation)
    for method, fixed in (("ours", np.linspace(0, 1, 21)[14]), ("signed", 3.0)):
        row, own = rows.loc[method], segmentation[segmentation["method"] == method]
        at = own.groupby("threshold")["dice"].mean()
        assert row["fixed_at"] == fixed and row["fixed"] == pytest.approx(at[fixed])
        assert row["best_at"] == best[method] and row["best"] == pytest.approx(at.max())
        per_image = own.groupby("sample")["dice"].max().mean()
        assert row["per_image"] == pytest.approx(per_image)
        # The dice are drawn at random: no choice carries over to the other half.
        assert abs(row["cross_validated"] - own["dice"].mean()) < 0.1
        assert row["cross_validated_lowest"] < row["cross_validated_highest"]
    shuffled = segmentation.sample(frac=1, random_state=1)
    again = threshold_table(shuffled, {"ours": 0.72, "signed": 3.0}).frame.set_index("method")
    pd.testing.assert_frame_equal(again.loc[rows.index], rows)


def test_a_threshold_that_is_right_for_all_is_found_by_cross_validation():
    rows = [
        (f"s{n}", "ours", threshold, 0.9 - abs(threshold - 0.4) + n / 1000)
        for n in range(9)
        for threshold in (0.2, 0.4, 0.6)
    ]
    frame = pd.DataFrame(rows, columns=["sample", "method", "threshold", "dice"])
    row = threshold_table(frame, {"ours": 0.6}).frame.iloc[0]
    assert row["cross_validated_at"] == row["best_at"] == pytest.approx(0.4)
    assert row["cross_validated"] == pytest.approx(row["best"], abs=1e-3)
    assert row["fixed"] == pytest.approx(row["best"] - 0.2)


def test_header_of_an_unscaled_column_has_no_power():
    assert header(Column("PSNR", "up")) == "PSNR ↑"


def test_method_table_counts_degenerate_masks_and_averages_the_sweep(segmentation):
    frame = method_table(segmentation).frame.set_index("method")
    assert frame.loc["full", "full"] == 1
    assert np.isnan(frame.loc["full", "dice_mean"])
    ours = segmentation[segmentation["method"] == "ours"]
    assert frame.loc["ours", "dice_mean"] == pytest.approx(ours["dice"].mean())
    best = [ours.loc[ours["sample"] == sample, "dice"].max() for sample in set(ours["sample"])]
    assert frame.loc["ours", "dice_per_image"] == pytest.approx(sum(best) / len(best))


def test_leak_levels_stand_in_the_tables(segmentation):
    knows = {"ours": "prompts", "signed": "word", "full": "nothing", "oracle": "annotation"}
    table = method_table(segmentation, knows=knows)
    assert dict(zip(table.frame["method"], table.frame["knows"], strict=True)) == knows
    assert "| prompts |" in table.to_markdown() and "Knows" in table.to_markdown()
    (note,) = leak_levels(knows)
    assert "prompts: ours; word: signed" in note and "have it easier" in note
    assert "easier" not in leak_levels({"ours": "prompts", "full": "nothing"})[0]
    assert leak_levels({"full": "nothing"}) == []


def test_interval_is_reproducible_and_that_of_a_plain_bootstrap(segmentation):
    row = method_table(segmentation).frame.set_index("method").loc["ours"]
    shuffled = segmentation.sample(frac=1, random_state=0)
    again = method_table(shuffled).frame.set_index("method").loc["ours"]
    assert (row["dice_low"], row["dice_high"]) == (again["dice_low"], again["dice_high"])
    at_best = segmentation[
        (segmentation["method"] == "ours") & (segmentation["threshold"] == row["threshold"])
    ]["dice"].to_numpy()
    draw = np.random.default_rng(5)
    means = [draw.choice(at_best, len(at_best)).mean() for _ in range(4000)]
    assert [row["dice_low"], row["dice_high"]] == pytest.approx(
        np.percentile(means, [2.5, 97.5]), abs=0.01
    )


def test_every_mean_of_the_csv_lies_in_its_interval(segmentation, editing, columns):
    dice = dice_table(segmentation).frame
    edits = editing_table(editing, columns, {"ours": 0.5}).frame
    for frame, names in ((dice, ["ours", "signed"]), (edits, ["lpips_unedit_part", "clip_edited"])):
        for name in names:
            known = frame[frame[name].notna()]
            assert (known[f"{name}_low"] <= known[name]).all()
            assert (known[name] <= known[f"{name}_high"]).all()
            assert (known[f"{name}_low"] < known[f"{name}_high"]).any()
            assert frame.loc[frame[name].isna(), f"{name}_low"].isna().all()
    by_method = method_table(segmentation).frame.set_index("method")
    assert dice["ours_low"][3] == by_method.loc["ours", "dice_low"]


def test_further_scores_are_shown_where_the_rows_have_them(segmentation):
    table = method_table(segmentation)
    assert table.formats["boundary_f"].header == "Boundary F ↑"
    assert "average_precision" not in table.formats
    at_best = {"method": "ours", "threshold": best_thresholds(segmentation)["ours"]}
    shown = table.frame.set_index("method").loc["ours", "dice_inner"]
    assert shown == pytest.approx(slow_mean(segmentation, "dice_inner", **at_best))


def test_samples_without_a_map_are_counted(segmentation):
    lost = segmentation["sample"].isin(["s00", "s01", "s02"]) & (segmentation["method"] == "ours")
    undefined = method_table(segmentation[~lost]).frame.set_index("method")["undefined"]
    assert undefined["ours"] == pytest.approx(3 / 24)
    assert undefined["signed"] == 0


@pytest.fixture
def hostile() -> Table:
    frame = pd.DataFrame({"name": ["a|b *c*\n<d>", r"50% {x}_y \ ~^#&$"], "score": [0.125, np.nan]})
    formats = {"name": Format("na|me_"), "score": Format("x ×10² ↓", digits=1, scale=100)}
    return Table("ti|tle_", frame, formats, ("no [link](x)",), frozenset({(0, "score")}))


def test_markdown_shows_contents_as_text(hostile):
    lines = hostile.to_markdown().splitlines()
    assert lines[0] == r"**ti\|tle\_**"
    assert lines[2:6] == [
        r"| na\|me\_ | x ×10² ↓ |",
        "| --- | ---: |",
        r"| a\|b \*c\* \<d> | **12.5** |",
        r"| 50% {x}\_y \\ ~^#&$ | – |",
    ]
    assert lines[-1] == r"- no [link\](x)"


def test_latex_escapes_every_special_character(hostile):
    text = hostile.to_latex()
    assert r"50\% \{x\}\_y \textbackslash{} \textasciitilde{}\textasciicircum{}\#\&\$ & --" in text
    assert r"a|b *c* <d> & \textbf{12.5} \\" in text
    assert r"x $\times$10$^{2}$ $\downarrow$ \\" in text


def test_latex_draws_a_rule_before_each_section(hostile):
    lines = replace(hostile, sections=frozenset({1})).to_latex().splitlines()
    assert lines[lines.index(r"a|b *c* <d> & \textbf{12.5} \\") + 1] == r"\midrule"


def test_terminal_shows_markup_as_text(hostile):
    console = Console(width=100)
    frame = hostile.frame.assign(name=["[red]x[/red]", "y"])
    with console.capture() as shown:
        console.print(replace(hostile, frame=frame).to_rich())
    assert "[red]x[/red]" in shown.get()


def test_csv_keeps_the_raw_numbers(hostile, tmp_path):
    paths = hostile.write(tmp_path, "table")
    assert [path.suffix for path in paths] == [".csv", ".md", ".tex", ".json"]
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), hostile.frame)


def test_a_row_without_a_threshold_is_always_taken(editing):
    other = editing[editing["method"] == "oracle"].assign(editor="they", threshold=np.nan)
    rows = at_thresholds(pd.concat([editing, other]), {"ours": 0.5, "oracle": 0.5})
    assert (rows[rows["method"] == "oracle"]["editor"].value_counts() == 6).all()
    with pytest.raises(ValueError, match=r"ours: no results at threshold 0\.77"):
        at_thresholds(editing, {"ours": 0.77})
