"""Ours beside the published: right differences where comparable, a plain word where not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typed_frames import typed

from piebench_masks.metrics.column import Column
from piebench_masks.report.published import Setting, published, published_tables

TYPES = published("dice")["edit_type"].tolist()[:-1]
FULL = Setting(
    "pie_bench",
    "sdxl_turbo",
    dict(zip(TYPES, [140, 80, 80, 80, 40, 40, 40, 40, 80, 80], strict=True)),
    "reference",
)
COLUMNS = {
    "psnr_unedit_part": Column("PSNR outside", "up"),
    "lpips_unedit_part": Column("LPIPS outside", "down", 1e3, role="background", part="outside"),
    "clip_edited": Column("CLIP edited", "up", role="edit", part="inside"),
    "clip_whole": Column("CLIP whole", "up", role="edit"),
}


@pytest.fixture(scope="module")
def masks() -> pd.DataFrame:
    """Masks of all types whose Dice at threshold 0.5 is 0.1 above the published ones'."""
    draw = np.random.default_rng(0)
    table = published("dice")
    rows = [
        (f"s{t}{n}", t, method, threshold, table[method][t] + 0.1 + shift + draw.normal(0, 0.02))
        for method in ("ours", "attn_based", "noise_based")
        for t in range(10)
        for n in range(8)
        for threshold, shift in ((0.25, -0.2), (0.5, 0.0))
    ]
    frame = pd.DataFrame(rows, columns=["sample", "edit_type", "method", "threshold", "dice"])
    return typed(frame, TYPES)


@pytest.fixture(scope="module")
def edits() -> pd.DataFrame:
    """Edits on the line CLIP = 20 + LPIPS / 40, at LPIPS 40 to 80, and one without a mask."""
    draw = np.random.default_rng(1)
    rows = []
    for n in range(10):
        for threshold, lpips in ((0.9, 40.0), (0.5, 60.0), (0.1, 80.0), (np.nan, 100.0)):
            method = "none" if np.isnan(threshold) else "ours"
            lpips += draw.normal(0, 2)
            scores = 25.0, lpips / 1e3, 20 + lpips / 40, 26.0
            rows.append((f"s{n}", 0, "turbo_edit", method, threshold, *scores))
    keys = ["sample", "edit_type", "editor", "method", "threshold"]
    return typed(pd.DataFrame(rows, columns=[*keys, *COLUMNS]), TYPES)


def test_every_number_has_a_source() -> None:
    for name, rows in {"dice": 11, "editing": 16, "pareto": 22}.items():
        table = published(name)
        assert len(table) == rows and table["source"].str.len().gt(10).all()


def test_differences_and_intervals_where_comparable(
    masks: pd.DataFrame, edits: pd.DataFrame
) -> None:
    tables = published_tables(masks, edits, COLUMNS, {"ours": 0.5}, FULL)
    assert list(tables) == ["published_dice", "published_editing", "published_pareto"]
    dice = tables["published_dice"].frame
    assert len(dice) == 11 * 3
    assert dice["difference"][:30].to_numpy() == pytest.approx(0.1, abs=0.02)
    assert (dice["difference_low"] < dice["difference"]).all()
    assert (dice["difference"] < dice["difference_high"]).all()

    editing = tables["published_editing"].frame.set_index(["what", "score"])
    row = editing.loc["TurboEdit with ours", "LPIPS outside ×10³ ↓"]
    mean = edits.loc[edits["threshold"] == 0.5, "lpips_unedit_part"].mean() * 1e3
    assert row["published"] == 51.89
    assert row["difference"] == pytest.approx(mean - 51.89)
    assert set(editing.index.get_level_values(0)) == {
        "TurboEdit without mask",
        "TurboEdit with ours",
    }

    pareto = tables["published_pareto"].frame
    assert len(pareto) == 8
    at = pareto["what"].str.extract(r"LPIPS ([\d.]+)")[0].astype(float)
    assert pareto["ours"].to_numpy() == pytest.approx(20 + at.to_numpy() / 40, abs=0.01)
    for table in tables.values():
        assert not any("VOID" in text for text in (table.title, *table.notes))


def test_a_point_that_our_curve_does_not_reach_has_no_difference(edits: pd.DataFrame) -> None:
    short = edits[edits["threshold"] >= 0.5]
    table = published_tables(pd.DataFrame(), short, COLUMNS, {"ours": 0.5}, FULL)
    assert table["published_pareto"].frame["ours"].isna().tolist() == [False] * 6 + [True] * 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dataset": "shapes"}, "the data are shapes, not PIE-Bench v1"),
        ({"dataset": "pie_bench_pp"}, "the data are pie_bench_pp, not PIE-Bench v1"),
        (
            {"samples": {"Random": 4, "Change Style": 8}},
            "the data are 12 of PIE-Bench's 700 samples",
        ),
        ({"model": "shapes_turbo"}, "the model is shapes_turbo, not SDXL-Turbo"),
    ],
)
def test_other_data_or_models_make_every_comparison_void(
    masks: pd.DataFrame, edits: pd.DataFrame, change: dict[str, object], reason: str
) -> None:
    setting = replace(FULL, **change)  # type: ignore[arg-type]
    tables = published_tables(masks, edits, COLUMNS, {"ours": 0.5}, setting)
    for table in tables.values():
        assert table.title.endswith("(VOID)")
        assert "VOID" in table.notes[0] and reason in table.notes[0]
        assert table.frame["difference"].isna().all() and table.frame["ours"].notna().any()


INVERSIONS = [
    "ddim+p2p",
    "null-text-inversion+p2p",
    "negative-prompt-inversion+p2p",
    "stylediffusion+p2p",
    "directinversion+p2p",
    "ddim+masactrl",
    "directinversion+masactrl",
    "ddim+pix2pix-zero",
    "directinversion+pix2pix-zero",
    "ddim+pnp",
    "directinversion+pnp",
]
"""The rows of PnP Inversion's Table 1."""


@pytest.fixture
def inverted(edits: pd.DataFrame) -> pd.DataFrame:
    """An edit of each sample by each of these methods."""
    unmasked = edits[edits["method"] == "none"]
    return pd.concat([unmasked.assign(editor=name) for name in INVERSIONS], ignore_index=True)


def test_the_rows_of_table_1_are_found_by_their_index_names(inverted: pd.DataFrame) -> None:
    setting = replace(FULL, model="sd14")
    tables = published_tables(pd.DataFrame(), inverted, COLUMNS, {}, setting)
    table = tables["published_editing"]
    assert "VOID" not in table.title
    lines = published("editing").set_index("editor").loc[INVERSIONS]
    assert list(table.frame["what"].unique()) == list(lines["label"])
    scored = table.frame.set_index(["what", "score"])["published"].xs("PSNR outside ↑", level=1)
    assert scored.to_list() == lines["psnr_unedit_part"].to_list()


def test_a_row_that_was_published_of_another_model_has_no_difference(
    inverted: pd.DataFrame,
) -> None:
    setting = replace(FULL, model="sd14")
    table = published_tables(pd.DataFrame(), inverted, COLUMNS, {}, setting)["published_editing"]
    elsewhere = table.frame["what"].str.endswith("Plug-and-Play")
    assert (table.frame["difference"].isna() == elsewhere).all() and elsewhere.any()
    assert any("Plug-and-Play with Stable Diffusion 1.5" in note for note in table.notes)
    only = inverted[inverted["editor"] == "ddim+pnp"]
    table = published_tables(pd.DataFrame(), only, COLUMNS, {}, setting)["published_editing"]
    assert table.title.endswith("(VOID)") and "not Stable Diffusion 1.5" in table.notes[0]
    setting = replace(FULL, model="sd15")
    table = published_tables(pd.DataFrame(), only, COLUMNS, {}, setting)["published_editing"]
    assert table.frame["difference"].notna().all()


def test_other_scorers_make_the_editing_tables_void(
    masks: pd.DataFrame, edits: pd.DataFrame
) -> None:
    other = {"lpips_unedit_part": "lpips_shapes_unedit_part", "clip_edited": "clip_shapes_edited"}
    columns = {other.get(name, name): column for name, column in COLUMNS.items()}
    renamed = edits.rename(columns=other)
    tables = published_tables(masks, renamed, columns, {"ours": 0.5}, FULL)
    assert "VOID" not in tables["published_dice"].title
    for name in ("published_editing", "published_pareto"):
        assert "LPIPS is lpips_shapes_unedit_part" in tables[name].notes[0]
        assert "CLIP is clip_shapes_edited" in tables[name].notes[0]
    table = tables["published_editing"].frame.set_index(["what", "score"])
    other, same = (table.xs(s, level=1) for s in ("LPIPS outside ×10³ ↓", "PSNR outside ↑"))
    assert other["ours"].isna().all() and same["ours"].notna().all()
    assert other.loc["TurboEdit with ours", "published"] == 51.89
    assert tables["published_pareto"].frame["ours"].isna().all()
