"""Trackers get a finished run; what they wrote is read back with their libraries' own formats."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wandb
from PIL import Image
from wandb_file import read_records

from piebench_masks.metrics.column import Column
from piebench_masks.report.charts import figures
from piebench_masks.report.gallery import GalleryRow
from piebench_masks.tracking.finished import native_plots, result_files, summary_metrics
from piebench_masks.tracking.mlflow import MlflowTracker
from piebench_masks.tracking.null import NullTracker
from piebench_masks.tracking.tracker import Dataset, FinishedRun, Tracker
from piebench_masks.tracking.weights_and_biases import WandbTracker, _has_key

COLUMNS = {
    "lpips_unedit_part": Column("LPIPS outside", "down", 1000.0, role="background"),
    "clip_edited": Column("CLIP edited", "up", role="edit"),
}


@pytest.fixture(autouse=True)
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_ERROR_REPORTING", "WANDB_DATA_DIR"):  # set by the tracker, undone here
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def tables() -> dict[str, pd.DataFrame]:
    types = ["Random", "Change Object", "Add Object", "Delete Object", "Change Attribute Content"]
    types += ["Change Attribute Pose", "Change Attribute Color", "Change Attribute Material"]
    types += ["Change Background", "Change Style", "Overall"]
    methods = pd.DataFrame({"method": ["ours"], "threshold": [0.5], "dice": [0.75]})
    by_type = pd.DataFrame({"edit_type": types, "n": 1, "ours": [0.5, *[0.25] * 8, np.nan, 0.75]})
    editing = {"editor": ["e"], "method": ["ours"], "lpips_unedit_part": [0.1]}
    editing |= {"lpips_unedit_part_low": [0.05], "lpips_unedit_part_high": [0.2]}
    return {
        "mask_methods": methods,
        "dice_by_edit_type": by_type,
        "editing": pd.DataFrame(editing),
    }


@pytest.fixture
def run(tmp_path: Path) -> FinishedRun:
    folder = tmp_path / "results"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "pareto.png")
    Image.new("RGB", (4, 4)).save(folder / "images" / "0.png")
    (folder / "report.html").write_text("<p>")
    (folder / "mask_scores.parquet").write_bytes(b"rows")
    (tmp_path / "samples.parquet").write_bytes(b"samples")
    cuts = {"method": ["ours"] * 2, "threshold": [0.3, 0.6]}
    masks = pd.DataFrame(cuts | {"sample": "a", "dice": [0.5, 0.75]})
    scores = {"lpips_unedit_part": [0.1, 0.2], "clip_edited": [20.0, 30.0]}
    edits = pd.DataFrame(cuts | {"editor": "e", "mask_source": "predicted"} | scores)
    picture = np.full((8, 8, 3), 9, np.uint8)
    half = np.zeros((8, 8), bool)
    half[:4] = True
    frames = tables()
    return FinishedRun(
        key="0123abcd",
        folder=folder,
        name="shapes",
        group="sweep",
        tags=["shapes", "exact"],
        config={"config": {"strength": 0.5}},
        commit="0123456789ab-dirty",
        dataset=Dataset("shapes", "fedcba", 2, tmp_path / "samples.parquet"),
        summary=summary_metrics(frames, COLUMNS),
        tables=frames,
        plots=native_plots(figures(masks, edits, COLUMNS)),
        samples=lambda: [
            GalleryRow(
                sample_id="a",
                edit_type="Change Object",
                pick="worst",
                source_prompt="a <b>",
                target_prompt="a c",
                source=picture,
                annotated=half,
                target=None,
                maps={},
                masks={"ours": ~half},
                edits={"ours": picture, "none": picture},
                levels={"ours": [0.3, 0.6]},
                cut={"ours": 1},
                dice={"ours": [0.5, 0.25]},
                scores={},
            )
        ],
        figures={"pareto": folder / "pareto.png"},
        files=result_files(folder),
    )


def publish(tracker: Tracker, run: FinishedRun) -> Path:
    place = tracker.publish(run)
    wandb.teardown()  # its process writes the last records after the run has ended
    assert place is not None
    return Path(place)


def records_of(folder: Path) -> list[Any]:
    return list(read_records(next(folder.glob("run-*.wandb"))))


def logged_media(records: list[Any]) -> dict[str, dict[str, Any]]:
    """Name of what was logged -> its description."""
    found: dict[str, dict[str, Any]] = {}
    for item in (i for r in records if r.HasField("history") for i in r.history.item):
        name, *rest = item.nested_key or [item.key]
        value = json.loads(item.value_json)
        if rest:
            found.setdefault(name, {})["/".join(rest)] = value
        elif isinstance(value, dict):
            found.setdefault(name, {}).update(value)
    return found


def rows_of(folder: Path, media: dict[str, Any]) -> list[dict[str, Any]]:
    table = json.loads((folder / "files" / media["path"]).read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def test_metrics_are_named_so_that_runs_compare() -> None:
    assert summary_metrics(tables(), COLUMNS) == {
        "dice/ours": 0.75,
        "threshold/ours": 0.5,
        "dice/ours/random": 0.5,
        **{
            f"dice/ours/{name}": 0.25
            for name in (
                "change_object",
                "add_object",
                "delete_object",
                "change_attribute_content",
                "change_attribute_pose",
                "change_attribute_color",
                "change_attribute_material",
                "change_background",
            )
        },
        "edit/ours/lpips_unedit_part": 0.1,
    }


def test_offline_run_says_what_was_run(run: FinishedRun, capfd: pytest.CaptureFixture) -> None:
    folder = publish(WandbTracker(project="masks"), run)
    assert capfd.readouterr() == ("", "")
    assert folder.parent == run.folder / "wandb"
    records = records_of(folder)
    about = next(record.run for record in records if record.HasField("run"))
    assert (about.project, about.display_name, about.run_group) == ("masks", "shapes", "sweep")
    assert sorted(about.tags) == ["exact", "shapes"]
    assert about.git.commit == "0123456789ab"
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert config["config"] == {"strength": 0.5}
    assert (config["commit"], config["dataset_digest"]) == ("0123456789ab-dirty", "fedcba")
    summary = {
        item.key: json.loads(item.value_json)
        for record in records
        if record.HasField("summary")
        for item in record.summary.update
    }
    assert run.summary.items() <= summary.items()


def test_offline_run_has_tables_charts_figures_and_samples(run: FinishedRun) -> None:
    folder = publish(WandbTracker(), run)
    records = records_of(folder)
    media = logged_media(records)
    by_type = rows_of(folder, media["dice_by_edit_type"])
    assert by_type[1]["ours"] == 0.25 and by_type[9]["ours"] is None
    assert rows_of(folder, media["editing"])[0]["lpips_unedit_part"] == 0.1
    charted = {
        name.split("_table")[0]: rows_of(folder, m) for name, m in media.items() if "_table" in name
    }
    points = charted["chart/pareto"]
    x, y = "LPIPS outside ×10³ ↓", "CLIP edited ↑"  # as the figure has them
    assert [(p[x], p[y]) for p in points] == [(100, 20), (200, 30)]
    assert [p["lineVal"] for p in charted["chart/dice_over_threshold"]] == [0.5, 0.75]
    # Of its editor there is one method, so that the figure calls the curve by the editor.
    assert {p["lineKey"] for p in charted["chart/pareto_curves"]} == {"e"}
    about = next(record.run for record in records if record.HasField("run"))
    updates = [i for r in records if r.HasField("config") for i in r.config.update]
    specs = json.dumps([i.value_json for i in [*updates, *about.config.update]])
    assert "wandb/scatter/v0" in specs and "wandb/lineseries/v0" in specs
    assert (folder / "files" / media["figure/pareto"]["path"]).is_file()
    assert media["samples"]["nrows"] == 1
    stored = {
        e.path: e for r in records if r.HasField("artifact") for e in r.artifact.manifest.contents
    }
    table = json.loads(Path(stored["samples.table.json"].local_path).read_text())
    sample = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (sample["sample"], sample["edit_type"], sample["pick"]) == (
        "a",
        "Change Object",
        "worst",
    )
    assert (sample["source_prompt"], sample["dice/ours"]) == ("a <b>", 0.25)
    overlays = {
        name: np.asarray(Image.open(stored[mask["path"]].local_path))
        for name, mask in sample["masks"]["masks"].items()
    }
    (row,) = run.samples()
    assert row.annotated is not None
    assert set(overlays) == {"annotated", "ours"}
    assert (overlays["annotated"] == row.annotated).all()
    assert (overlays["ours"] == row.masks["ours"]).all()
    classes = stored[sample["masks"]["classes"]["path"]].local_path
    labels = {c["id"]: c["name"] for c in json.loads(Path(classes).read_text())["class_set"]}
    assert labels == {0: "keep", 1: "edit"}
    for edit in ("edit/ours", "edit/none"):
        assert stored[sample[edit]["path"]].size > 0


def test_offline_run_leads_from_the_data_set_to_the_results(run: FinishedRun) -> None:
    records = records_of(publish(WandbTracker(), run))
    artifacts = {r.artifact.type: r.artifact for r in records if r.HasField("artifact")}
    data, results = artifacts["dataset"], artifacts["results"]
    assert data.use_after_commit and not results.use_after_commit
    assert json.loads(data.metadata) == {"digest": "fedcba", "samples": 2}
    assert [entry.path for entry in data.manifest.contents] == ["samples.parquet"]
    stored = {entry.path: entry.local_path for entry in results.manifest.contents}
    assert set(stored) == {"mask_scores.parquet", "report.html", "pareto.png", "images/0.png"}
    assert stored["mask_scores.parquet"] == str(run.folder / "mask_scores.parquet")
    assert json.loads(results.metadata)["dataset_digest"] == "fedcba"


def test_the_same_content_is_published_once(run: FinishedRun) -> None:
    first = publish(WandbTracker(), run)
    written = next(first.glob("run-*.wandb")).stat().st_mtime_ns
    assert publish(WandbTracker(), run) == first
    assert next(first.glob("run-*.wandb")).stat().st_mtime_ns == written
    changed = dataclasses.replace(run, summary={"dice/ours": 0.5})
    second = publish(WandbTracker(), changed)
    assert first.name.split("-")[-1] == second.name.split("-")[-1]
    assert list(second.parent.glob("offline-run-*")) == [second]


def test_rows_that_wandb_would_cut_off_are_an_error(run: FinishedRun) -> None:
    rows = dataclasses.replace(run, tables={"rows": pd.DataFrame({"n": range(10_001)})})
    with pytest.raises(ValueError, match="10000"):
        WandbTracker().publish(rows)
    wandb.teardown()


def test_a_key_is_never_written(run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "5ec2e7" * 7
    monkeypatch.setenv("WANDB_API_KEY", secret[:40])
    monkeypatch.setenv("WANDB_MODE", "offline")
    publish(WandbTracker(), run)
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if secret[:40].encode() in path.read_bytes()]


def test_mlflow_has_everything_in_a_local_file(run: FinishedRun, tmp_path: Path) -> None:
    client = pytest.importorskip("mlflow").MlflowClient(
        f"sqlite:///{tmp_path / 'ml' / 'mlflow.db'}"
    )
    tracker = MlflowTracker(str(tmp_path / "ml"))
    place = tracker.publish(run)
    experiment = client.get_experiment_by_name("piebench-masks").experiment_id
    (stored,) = client.search_runs([experiment])
    assert place == f"{tmp_path / 'ml' / 'mlflow.db'}, run {stored.info.run_id}"
    assert stored.data.metrics == run.summary
    assert stored.data.params == {"config/strength": "0.5"}
    assert stored.data.tags["mlflow.source.git.commit"] == "0123456789ab"
    assert (stored.info.run_name, stored.data.tags["group"]) == ("shapes", "sweep")
    (data,) = stored.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("shapes", "fedcba")
    artifacts = {file.path for file in client.list_artifacts(stored.info.run_id)}
    assert artifacts == {"mask_scores.parquet", "report.html", "pareto.png", "images", "shown"}
    assert tracker.publish(run) == place
    config = {"editor": {"ddim+p2p": {"steps": 50}}}
    tracker.publish(dataclasses.replace(run, summary={"psnr/ddim+p2p": 0.5}, config=config))
    (replaced,) = client.search_runs([experiment])
    assert replaced.data.metrics == {"psnr/ddim_p2p": 0.5}
    assert replaced.data.params == {"editor/ddim_p2p/steps": "50"}
    assert len(list((tmp_path / "ml" / "mlflow").iterdir())) == 1


def test_a_key_is_found_where_wandb_looks_for_it(tmp_path, monkeypatch):
    assert not _has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert _has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not _has_key()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert _has_key()


def test_null_tracker_publishes_nothing(run):
    before = sorted(run.folder.rglob("*"))
    assert NullTracker().publish(run) is None
    assert sorted(run.folder.rglob("*")) == before
