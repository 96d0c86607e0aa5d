"""Edits made elsewhere: found, cut out of strips, scored side by side, the oracle's apart."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.pie_bench import load_pie_bench
from piebench_masks.data.rle import from_coco
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.editing.external import external_methods, load_edit
from piebench_masks.errors import BenchmarkError
from piebench_masks.pipeline import run_pipeline
from piebench_masks.run import Run
from piebench_masks.stages.masks import Cuts
from piebench_masks.stages.variants import Variants

SHARED = Path(os.environ.get("PIEBENCH_SHARED", Path(__file__).parents[2] / "shared"))
Start = Callable[..., tuple[int, str, Path]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run with overrides: number of failed items, printed text, folder of results."""

    def run(*overrides: str) -> tuple[int, str, Path]:
        console = Console(file=io.StringIO(), record=True, width=200)
        places = f"artifacts_dir={tmp_path}/artifacts", f"results_dir={tmp_path}/results"
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("config", [*places, "tracker=none", *overrides])
        failed = run_pipeline(cfg, cfg.stages, console)
        return failed, console.export_text(), tmp_path / "results" / cfg.name

    return run


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, per_type=1)
    return root


def test_the_folder_of_one_method_is_not_taken_for_all(shapes: Path) -> None:
    with pytest.raises(BenchmarkError, match=f"root={shapes.parent}$"):
        external_methods(shapes, None)


def test_a_strips_last_square_is_the_edit(tmp_path: Path) -> None:
    strip = np.zeros((16, 64, 3), np.uint8)
    strip[:, 48:] = 200
    Image.fromarray(strip).save(tmp_path / "strip.png")
    assert (load_edit(tmp_path / "strip.png", (16, 16, 3)) == 200).all()
    assert load_edit(tmp_path / "strip.png", (16, 64, 3)).shape == (16, 64, 3)
    Image.fromarray(strip.transpose(1, 0, 2)).save(tmp_path / "tower.png")
    assert (load_edit(tmp_path / "tower.png", (16, 16, 3)) == 200).all()


def test_methods_are_the_folders_unless_chosen(tmp_path: Path) -> None:
    for name in ("b+c", "a"):
        (tmp_path / name).mkdir()
    assert external_methods(tmp_path, None) == {"a": "none", "b+c": "none"}
    assert external_methods(tmp_path, {"b+c": "oracle"}) == {"b+c": "oracle"}
    with pytest.raises(BenchmarkError, match="no folder z: set it"):
        external_methods(tmp_path, {"z": "none"})
    with pytest.raises(BenchmarkError, match="no folder of any method"):
        external_methods(tmp_path / "a", None)
    with pytest.raises(BenchmarkError, match="not none, predicted or oracle"):
        external_methods(tmp_path, {"a": "some"})  # type: ignore[dict-item]


def test_several_methods_stand_in_one_table_and_a_missing_picture_is_a_failure(
    start: Start, shapes: Path, tmp_path: Path
) -> None:
    entries = list(json.loads((shapes / "mapping_file.json").read_text()).values())
    for method, change in {"nothing": 0, "bound": 1, "darker": 60}.items():
        for entry in entries[:3]:
            with Image.open(shapes / "annotation_images" / entry["image_path"]) as image:
                pixels = np.asarray(image.convert("RGB"))
            file = tmp_path / "output" / method / "annotation_images" / entry["image_path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels - np.minimum(pixels, change)).save(file)
    file.unlink()
    failed, text, results = start(
        "experiment=external",
        "dataset=shapes",
        f"dataset.root={shapes}",
        "metrics=shapes",
        "limit=3",
        f"editor.external.root={tmp_path}/output",
        "editor.external.methods={nothing: none, darker: predicted, bound: oracle}",
    )
    assert failed == 1 and "0 U-Net rows" in text
    [failure] = (results / "failures.jsonl").read_text().splitlines()
    assert str(file) in failure and "is missing" in failure
    rows = pd.read_parquet(results / "edit_scores.parquet")
    sources = rows.groupby("editor")["mask_source"].unique().map(list).to_dict()
    bounds = {"identity": ["none"], "target": ["none"]}
    given = {"nothing": ["none"], "darker": ["predicted"], "bound": ["oracle"]}
    assert sources == given | bounds
    table = pd.read_csv(results / "tables" / "editing.csv")
    assert list(table["editor"]) == ["nothing", "darker", "bound", "identity", "target"]
    assert list(table["n"]) == [3, 2, 3, 3, 3]
    markdown = (results / "tables" / "editing.md").read_text().splitlines()
    assert "**" not in next(line for line in markdown if line.startswith("| bound"))


def test_a_changed_picture_is_scored_anew(start: Start, shapes: Path, tmp_path: Path) -> None:
    entry = next(iter(json.loads((shapes / "mapping_file.json").read_text()).values()))
    file = tmp_path / "output" / "mine" / "annotation_images" / entry["image_path"]
    file.parent.mkdir(parents=True)
    settings = ["experiment=external", "dataset=shapes", "limit=1", "metrics=shapes"]
    settings += [f"dataset.root={shapes}", f"editor.external.root={tmp_path}/output"]
    found = []
    for brightness in (0, 0, 255):
        Image.new("RGB", (64, 64), (brightness,) * 3).save(file)
        _, _, results = start(*settings)
        rows = pd.read_parquet(results / "edit_scores.parquet")
        found.append(rows.loc[rows["editor"] == "mine", "mse"].item())
    assert found[0] == found[1] != found[2]


def test_turbo_edits_oracle_is_the_annotated_mask_itself(shapes: Path, tmp_path: Path) -> None:
    overrides = [f"dataset.root={shapes}", f"artifacts_dir={tmp_path}", "mask=[]"]
    with initialize_config_dir(CONF, version_base="1.3"):
        run = Run(compose("config", [*overrides, "baselines=[oracle]"]))
    sample = load_pie_bench(shapes, mask_size=64, border=0, on_error="raise").samples[3]
    assert sample.mask is not None
    cuts = Cuts(run, [sample])
    [work] = cuts.pending()
    cuts.store([work], cuts.compute([work], cuts.load([work])))
    _, oracle = Variants(run).of(sample, "turbo_edit")
    assert oracle.mask is not None
    assert (oracle.method, oracle.mask_source) == ("oracle", "oracle")
    annotated = torch.from_numpy(from_coco(sample.mask))[None, None].float()
    expected = F.interpolate(annotated, (16, 16), mode="nearest-exact")[0, 0].bool()
    np.testing.assert_array_equal(oracle.mask.array(16), expected)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real samples are not at {SHARED}")
@pytest.mark.slow  # parity/test_parity.py has their scores
def test_published_edits_get_the_official_evaluators_means(start: Start) -> None:
    mini = SHARED / "data" / "piebench_mini"
    failed, _, results = start(
        "experiment=external",
        f"dataset.root={mini}",
        f"editor.external.root={mini}/output",
        f"metrics.lpips.backbone={SHARED}/weights/squeezenet1_1_features.safetensors",
        "~metrics.clip",  # not in the official file, and not to be downloaded
        "~metrics.structure",
    )
    assert failed == 0
    official = pd.DataFrame(json.loads((mini / "official_metrics.json").read_text())).T
    official = official.drop(columns="mask_pixels").astype(float)
    row, identity = pd.read_csv(results / "tables" / "editing.csv").to_dict("records")
    assert identity["editor"] == "identity" and identity["n"] == 12
    assert (row["editor"], row["mask_source"], row["n"]) == (
        "directinversion+masactrl",
        "none",
        12,
    )
    for name, mean in official.mean().items():
        assert row[str(name)] == pytest.approx(mean, rel=1e-4), name
    shown = (results / "tables" / "editing.md").read_text().splitlines()[2]
    for label in ("PSNR", "LPIPS", "MSE", "SSIM"):
        assert f"{label} outside" in shown and f"{label} inside" not in shown
