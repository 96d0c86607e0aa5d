"""The whole pipeline on data sets that are not PIE-Bench's: without masks, of any size."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.pipeline import run_pipeline

Start = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, per_type=1)
    return root


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run with overrides: number of failed items, printed text."""

    def run(*overrides: str) -> tuple[int, str]:
        console = Console(file=io.StringIO(), record=True, width=200)
        places = f"artifacts_dir={tmp_path}/artifacts", f"results_dir={tmp_path}/results"
        fixed = [*places, "name=run", "tracker=none"]
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("config", [*fixed, *overrides])
        return run_pipeline(cfg, cfg.stages, console), console.export_text()

    return run


def own_pictures(shapes: Path, folder: Path, *, masks: bool) -> Path:
    """Three scenes as a user would bring them, of different sizes, one with a mask if any has."""
    folder.mkdir()
    lines = ["image,source_prompt,target_prompt,mask"]
    entries = list(json.loads((shapes / "mapping_file.json").read_text()).values())
    for number, (entry, size) in enumerate(zip(entries, [(64, 64), (90, 50), (48, 70)])):  # noqa: B905
        with Image.open(shapes / "annotation_images" / entry["image_path"]) as image:
            image.resize(size).save(folder / f"scene {number}.png")
        mask = "mask.png" if masks and number == 1 else ""
        prompts = entry["original_prompt"], entry["editing_prompt"]
        lines.append(f"scene {number}.png,{prompts[0]},{prompts[1]},{mask}")
    left = Image.new("L", (90, 50))
    left.paste(255, (0, 0, 45, 50))
    left.save(folder / "mask.png")
    (folder / "prompts.csv").write_text("\n".join(lines))
    return folder


def test_a_folder_without_masks_is_edited_and_scored_on_the_whole_image(
    start: Start, shapes: Path, tmp_path: Path
) -> None:
    root = own_pictures(shapes, tmp_path / "own", masks=False)
    failed, text = start("dataset=folder", f"dataset.root={root}", "thresholds=3")
    assert failed == 0, text
    results = tmp_path / "results" / "run"
    edits = pd.read_parquet(results / "edit_scores.parquet")
    # Three pictures: without a mask, four methods at three thresholds, the three baselines that
    # need no annotation, and the two bounds that need no true edit.
    assert len(edits) == 3 * (1 + 4 * 3 + 3 + 2)
    assert edits[["psnr", "lpips_shapes", "clip_shapes_whole"]].notna().all(axis=None)
    assert edits[["lpips_shapes_unedit_part", "clip_shapes_edited"]].isna().all(axis=None)
    assert pd.read_parquet(results / "mask_scores.parquet").empty
    for name in ("report.html", "gallery.png", "pareto.svg", "tables/editing.csv"):
        assert (results / name).stat().st_size > 0
    assert not (results / "tables" / "dice_by_edit_type.csv").exists()


def test_masks_are_scored_where_there_are_any(start: Start, shapes: Path, tmp_path: Path) -> None:
    root = own_pictures(shapes, tmp_path / "own", masks=True)
    failed, text = start("dataset=folder", f"dataset.root={root}", "mask=[ours]")
    assert failed == 0, text
    results = tmp_path / "results" / "run"
    assert set(pd.read_parquet(results / "mask_scores.parquet")["sample"]) == {"scene-1"}
    edits = pd.read_parquet(results / "edit_scores.parquet")
    known = edits[edits["lpips_shapes_unedit_part"].notna()]
    assert set(known["sample"]) == {"scene-1"}
    assert set(edits["sample"]) == {"scene-0", "scene-1", "scene-2"}
