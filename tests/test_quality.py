"""The embedded default is worth running: its masks and edits on all 200 samples.

``golden_dice.csv`` is the table that the demo prints; where a change of quality is meant, write it
anew with ``python tests/test_quality.py``.
"""

import io
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.pipeline import run_pipeline
from piebench_masks.report.mask_tables import dice_table
from piebench_masks.report.methods import best_thresholds
from piebench_masks.run import Run
from piebench_masks.stages.parse import parse
from piebench_masks.stages.scores import edit_scores, mask_scores

GOLDEN = Path(__file__).parent / "golden_dice.csv"
TO_REACH = {"attn_based": 0.88, "ours": 0.78, "diffedit": 0.65}


def scored(folder: Path, *overrides: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run on the whole embedded default; the per-sample rows of masks and of edits."""
    with initialize_config_dir(CONF, version_base="1.3"):
        places = [f"{name}_dir={folder / name}" for name in ("data", "artifacts", "results")]
        quick = ["tracker=none", "~metrics.clip", "~metrics.lpips"]
        cfg = compose("config", [*places, *quick, *overrides])
    console = Console(file=io.StringIO())
    assert run_pipeline(cfg, cfg.stages, console) == 0
    run = Run(cfg)
    samples = parse(run, console).samples
    assert len(samples) == 200
    return mask_scores(run, samples), edit_scores(run, samples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quality")


@pytest.fixture(scope="module")
def masks(folder: Path) -> pd.DataFrame:
    return scored(folder, "stages=[parse,masks,score]")[0]


@pytest.mark.slow
def test_the_dice_table_is_the_golden_one(masks: pd.DataFrame) -> None:
    expected = pd.read_csv(GOLDEN)
    found = dice_table(masks).frame[list(expected)]
    # Other processors round differently, and a pixel at a threshold may flip.
    pd.testing.assert_frame_equal(
        found, expected, atol=2e-3, rtol=0, check_dtype=False, check_names=False
    )


@pytest.mark.slow
def test_the_methods_reach_what_they_should_and_beat_every_trivial_mask(
    masks: pd.DataFrame,
) -> None:
    best = best_thresholds(masks)
    dice = {
        method: rows.loc[rows["threshold"] == best[method], "dice"].mean()
        for method, rows in masks.groupby("method")
    }
    trivial = max(dice[name] for name in ("full", "empty", "centre", "random"))
    for method, least in TO_REACH.items():
        assert least <= dice[method] < dice["oracle"]
        assert dice[method] > trivial


@pytest.mark.slow
def test_the_zoo_beats_a_box_in_the_middle(tmp_path: Path) -> None:
    masks, edits = scored(tmp_path, "experiment=zoo", "stages=[parse,masks,score]")
    best = best_thresholds(masks)
    at_best = masks[masks["threshold"] == masks["method"].map(best)]
    dice = at_best.groupby("method")["dice"].mean()
    assert edits.empty and len(dice) == 22
    # docs/masks.md says why this one does not.
    worse = dice[dice < dice["centre"]].drop(["full", "empty", "random"])
    assert worse.index.tolist() == ["instant"]


@pytest.mark.slow
def test_edits_do_what_was_asked_and_keep_the_background(folder: Path) -> None:
    _, edits = scored(
        folder,
        "mask=[ours]",
        "baselines=[]",
        "thresholds=[0.35]",
        "stages=[parse,masks,edit,score]",
    )
    by_method = edits[edits["editor"] == "turbo_edit"].groupby("method")
    # Relative to doing nothing; 1 is no edit at all.
    error = by_method["target_error"].median()
    assert error["none"] <= 0.12
    assert (error < 0.30).all()
    assert by_method["psnr_unedit_part"].mean()["ours"] > 35
    assert (
        by_method["psnr_unedit_part"].mean()["ours"] > by_method["psnr_unedit_part"].mean()["none"]
    )


if __name__ == "__main__":
    rows, _ = scored(Path(sys.argv[1]), "stages=[parse,masks,score]")
    table = dice_table(rows).frame
    table[[name for name in table if not name.endswith(("_low", "_high"))]].round(4).to_csv(
        GOLDEN, index=False
    )
