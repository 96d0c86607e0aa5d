"""The whole pipeline on the embedded model: what is computed, kept, repeated and reported."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.pie_bench import load_pie_bench
from piebench_masks.data.rle import from_coco
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.errors import BenchmarkError
from piebench_masks.pipeline import run_pipeline
from piebench_masks.run import Run
from piebench_masks.stages.edit import Edit, Painted
from piebench_masks.stages.parse import parse
from piebench_masks.stages.scores import edit_scores, mask_scores
from piebench_masks.stages.stage import Batch
from piebench_masks.store import Folder
from piebench_masks.temporary import temporary_name

Start = Callable[..., tuple[int, str]]
Rows = tuple[pd.DataFrame, pd.DataFrame]
"""Of masks and of edits."""
Scores = Callable[..., Rows]
REPORT = "stages=[parse,masks,edit,score,report]"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scenes, one of each edit type."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, per_type=1)
    return root


def configuration(data: Path, folder: Path, overrides: Sequence[str]) -> DictConfig:
    fixed = {
        "dataset.root": data,
        "artifacts_dir": folder / "artifacts",
        "results_dir": folder / "results",
        "name": "run",
        "tracker": "none",
        "limit": 4,
        "batch_size": 2,
        "thresholds": "[0.4,0.6]",
        "stages": "[parse,masks,edit,score]",
    }
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", [*(f"{k}={v}" for k, v in fixed.items()), *overrides])


@pytest.fixture
def start(data: Path, tmp_path: Path) -> Start:
    """Run with overrides in a folder of that name: number of failed items, printed text."""

    def run(*overrides: str, at: str = "here", root: Path = data) -> tuple[int, str]:
        console = Console(file=io.StringIO(), record=True, width=200)
        cfg = configuration(root, tmp_path / at, overrides)
        return run_pipeline(cfg, cfg.stages, console), console.export_text()

    return run


@pytest.fixture
def scores(data: Path, tmp_path: Path) -> Scores:
    """The per-sample rows that a run in the folder of that name has stored."""

    def read(at: str = "here") -> tuple[pd.DataFrame, pd.DataFrame]:
        return stored_scores(configuration(data, tmp_path / at, []))

    return read


def stored_scores(cfg: DictConfig) -> Rows:
    run = Run(cfg)
    samples = parse(run, Console(file=io.StringIO())).samples
    return mask_scores(run, samples), edit_scores(run, samples)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The per-sample rows of one run without interruption."""
    cfg = configuration(data, tmp_path_factory.mktemp("whole"), [])
    run_pipeline(cfg, cfg.stages, Console(file=io.StringIO()))
    return stored_scores(cfg)


def assert_equal(
    ours: Rows,
    other: Rows,
    tolerance: float = 0.0,
) -> None:
    for one, two in zip(ours, other, strict=True):
        keys = ["sample", "method", "threshold"]
        one, two = (frame.sort_values(keys, ignore_index=True) for frame in (one, two))
        exact = {"check_exact": True} if tolerance == 0 else {"rtol": tolerance, "atol": tolerance}
        pd.testing.assert_frame_equal(one, two, **exact)


def test_a_run_leaves_tables_figures_gallery_page_and_provenance(
    start: Start, tmp_path: Path
) -> None:
    failed, text = start(REPORT)
    folder = tmp_path / "here" / "results" / "run"
    assert failed == 0
    assert "Dice ↑ by edit type" in text
    for name in (
        "report.html",
        "gallery.png",
        "config.yaml",
        "pareto.svg",
        "pareto.pdf",
        "dice.png",
        "tables/dice_by_edit_type.tex",
        "tables/editing.md",
        "tables/cost.csv",
        "tables/mask_methods.csv",
        "tables/thresholds.csv",
        "tables/published_dice.md",
        "tables/published_editing.md",
        "tables/published_pareto.md",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert text.count("Not comparable with the published numbers") == 1 and "VOID" not in text
    assert "not PIE-Bench v1" in (folder / "tables/published_editing.md").read_text()
    assert text.splitlines()[-1].endswith("report.html")
    how = json.loads((folder / "provenance.json").read_text())
    assert how["versions"]["torch"] and how["samples"] == 4
    assert how["weights"].keys() == {"model", "metrics.lpips", "metrics.clip"}
    assert how["model"] == f"shapes_turbo ({how['weights']['model']})"
    edits = pd.read_parquet(folder / "edit_scores.parquet")
    # 4 samples: without a mask, four methods at two thresholds, five baselines, three bounds
    assert len(edits) == 4 * (1 + 4 * 2 + 5 + 3)
    assert edits["clip_shapes_whole"].notna().all()


def test_edits_lie_between_the_source_and_the_true_edit(start: Start, scores: Scores) -> None:
    """What the bounds score is known: an unchanged background, no error or the whole error."""
    start("mask=ours", "baselines=[]", "thresholds=one")
    _, edits = scores()
    identity, target = (edits[edits["method"] == bound] for bound in ("identity", "target"))
    assert len(identity) == len(target) == 4
    assert (identity["editor"] == "identity").all() and identity["mask_area"].isna().all()
    for rows, error in ((identity, 1.0), (target, 0.0)):
        assert rows["target_error"].to_list() == pytest.approx([error] * 4)
        assert rows["mse_unedit_part"].dropna().unique().tolist() == [0.0]
    reconstruction = edits[edits["method"] == "reconstruction"]
    assert (reconstruction["nfe_forward"] == 0).all()
    assert (reconstruction["psnr"] > 25).all()
    assert reconstruction["target_error"].between(0.5, 1.5).all()
    clip = [rows["clip_shapes_edited"].to_numpy() for rows in (identity, target)]
    assert (clip[1] > clip[0]).mean() > 0.5


def test_running_again_computes_nothing_and_says_so(start: Start, scores: Scores) -> None:
    start()
    before = scores()
    _, text = start()
    assert "nothing to compute: all artifacts are there" in text and " of " not in text
    assert_equal(before, scores())


def test_another_place_or_batch_size_computes_nothing_again(
    start: Start, data: Path, tmp_path: Path
) -> None:
    here = shutil.copytree(data, tmp_path / "here" / "data")
    start(root=here)
    shutil.move(tmp_path / "here", tmp_path / "there")
    _, text = start("batch_size=1", at="there", root=tmp_path / "there" / "data")
    assert "nothing to compute: all artifacts are there" in text


def test_masks_made_elsewhere_are_scored_as_they_are_and_followed_when_they_change(
    start: Start, data: Path, tmp_path: Path
) -> None:
    samples = load_pie_bench(data, mask_size=64, border=0, on_error="raise").samples[:4]
    files = []
    for sample in samples:
        assert sample.mask is not None
        files.append(tmp_path / "masks" / "mine" / f"{sample.id}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(from_coco(sample.mask)).save(files[-1])
    external = f"mask.external.root={tmp_path}/masks", "mask.external.methods={mine: annotation}"
    settings = "mask=[external]", "baselines=[]", *external, "stages=[parse,masks,score]"
    failed, text = start(*settings)
    assert failed == 0 and "0 VAE encodes" in text
    run = Run(configuration(data, tmp_path / "here", settings))
    rows = mask_scores(run, parse(run, Console(file=io.StringIO())).samples)
    assert (rows.loc[rows["threshold"] == 0.5, "dice"] == 1).all() and len(rows) == 4 * 21
    Image.new("L", (64, 64), 255).save(files[0])
    _, text = start(*settings)
    assert "2 items computed" in text  # its map and its scores
    files[1].unlink()
    failed, text = start(*settings, "fail_on_error=false")
    assert failed == 1


def test_a_run_says_whose_results_it_replaces(start: Start) -> None:
    masks = "stages=[parse,masks,score,report]"
    _, first = start(masks)
    _, again = start(masks, "batch_size=1")
    _, other = start(masks, "limit=2")
    assert "takes its place" not in first + again
    assert "is of a run with other limit: this one takes its place" in " ".join(other.split())


def test_an_interrupted_run_goes_on_to_the_very_same_scores(
    start: Start, scores: Scores, whole: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, batches = Edit.compute, []

    def interrupted(self: Edit, batch: Batch, loaded: Any) -> list[Painted]:
        batches.append(batch)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return compute(self, batch, loaded)

    monkeypatch.setattr(Edit, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(at="interrupted")
    monkeypatch.undo()
    start(at="interrupted")
    assert_equal(whole, scores("interrupted"))


def test_batch_size_and_worker_processes_change_no_score(start: Start, scores: Scores) -> None:
    start("threads=1", at="one")
    start("threads=1", "batch_size=3", at="batches")
    assert_equal(scores("one"), scores("batches"))
    start("threads=1", "devices=[cpu,cpu]", at="workers")
    assert_equal(scores("one"), scores("workers"))


def test_a_method_added_later_reuses_what_is_there(
    start: Start, scores: Scores, whole: Rows
) -> None:
    start("mask=[ours]", "baselines=[]", at="grown")
    _, text = start(at="grown")
    assert "0 VAE encodes" in text
    assert_equal(scores("grown"), whole)


def test_a_sample_that_fails_is_reported_and_stops_no_other(
    start: Start, data: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    for at in ("here", "strict"):
        start("stages=[parse]", root=broken, at=at)
    victim, entry = next(iter(json.loads((broken / "mapping_file.json").read_text()).items()))
    image = broken / "annotation_images" / entry["image_path"]
    times = image.stat()
    image.write_bytes(b"\0" * times.st_size)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if the disk had gone bad
    failed, _ = start("fail_on_error=false", REPORT, root=broken)
    folder = tmp_path / "here" / "results" / "run"
    lines = (folder / "failures.jsonl").read_text().splitlines()
    assert failed == len(lines) > 0
    assert {json.loads(line)["sample_id"] for line in lines} == {victim}
    assert entry["image_path"] in json.loads(lines[0])["reason"]
    assert pd.read_parquet(folder / "mask_scores.parquet")["sample"].nunique() == 3
    with pytest.raises(BenchmarkError, match="fail_on_error=True"):
        start("fail_on_error=true", root=broken, at="strict")


def test_a_dry_run_computes_and_writes_nothing(start: Start, tmp_path: Path) -> None:
    start("stages=[parse]")
    before = sorted(tmp_path.rglob("*"))
    _, text = start("dry_run=true")
    assert "nothing is computed" in text and "36 maps" in text
    assert text.count("not known yet") == 3 and "0 edits" not in text
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_there_is_kept_or_refused_as_asked(start: Start) -> None:
    with pytest.raises(BenchmarkError, match="overwrite=only-cache"):
        start("overwrite=only-cache")
    start("stages=[parse,masks]", "mask=[]", "baselines=[full]")
    for baselines in ("[full,empty]", "[full]"):
        with pytest.raises(BenchmarkError, match="overwrite=never"):
            only = "stages=[parse,masks]", "mask=[]", f"baselines={baselines}"
            start(*only, "overwrite=never")
    _, text = start("stages=[parse,masks]", "mask=[]", "baselines=[full]", "overwrite=always")
    assert "4 items computed" in text


def test_never_computes_a_fresh_run_whole(start: Start) -> None:
    failed, text = start("overwrite=never", "mask=[ours]", "baselines=[]", "limit=1")
    assert failed == 0 and "0 failed" in text


def test_temporaries_of_the_dead_go_with_the_next_run(start: Start, tmp_path: Path) -> None:
    left = tmp_path / "here" / "artifacts" / "edit" / "0123" / "sample"
    left.mkdir(parents=True)
    _, *rest = temporary_name()[1:].split("-")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (left / f"~{dead.pid}-{'-'.join(rest)}").write_bytes(b"half")
    start("stages=[parse]", "dry_run=true")
    assert any(left.iterdir())
    start("stages=[parse]")
    assert not any(left.iterdir())


@pytest.mark.slow
def test_items_of_two_processes_tell_both(start: Start, tmp_path: Path) -> None:
    start("mask=[ours]", "baselines=[full]", "devices=[cpu,cpu]", "threads=1")
    start("mask=[ours]", "baselines=[full]", "limit=6", "threads=2")
    folders = [*map(Folder, tmp_path.glob("here/artifacts/edit/*"))]
    assert len(folders) == 2  # TurboEdit's and the reconstruction's
    for folder in folders:
        rows = folder.rows(["item", "mask"], origin=True)
        made = [folder.provenance(origin) for origin in rows["provenance"].unique()]
        assert [how["threads"] for how in made if how is not None] == [1, 2]
        names = [f"{row.item}/{row.mask}.png" for row in rows.itertuples()]
        assert [folder.made_by(name) for name in names] == list(rows["provenance"])
    for stage in ("latents", "maps", "masks", "mask_scores", "edit_scores"):
        for path in tmp_path.glob(f"here/artifacts/{stage}/*"):
            assert list(path.glob("provenance/*.json")), path


def test_a_damaged_artifact_is_computed_again(start: Start, scores: Scores, tmp_path: Path) -> None:
    start()
    before = scores()
    artifacts = tmp_path / "here" / "artifacts"
    torn = next(artifacts.glob("maps/*/*.safetensors"))
    torn.write_bytes(torn.read_bytes()[:-7])
    flipped = next(artifacts.glob("latents/*/*.safetensors"))
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"?")
    failed, text = start()
    assert failed == 0 and "1 items computed" in text
    assert_equal(before, scores())


def test_a_missing_setting_and_an_unknown_stage_are_named(start: Start) -> None:
    with pytest.raises(BenchmarkError, match=r"dataset\.root must be set"):
        start("dataset=pie_bench", "dataset.root=???")
    with pytest.raises(BenchmarkError, match="stages: paint unknown"):
        start("stages=[paint]")
