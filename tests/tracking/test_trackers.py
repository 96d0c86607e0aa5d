import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb
from PIL import Image
from wandb_file import read_records

from piebench_masks.tracking.null import NullTracker
from piebench_masks.tracking.tracker import Tracker
from piebench_masks.tracking.weights_and_biases import WandbTracker, _has_key


@pytest.fixture(autouse=True)
def no_credentials(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_ERROR_REPORTING", "WANDB_DATA_DIR"):  # set by the tracker, undone here
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def run(tmp_path) -> dict:
    Image.new("RGB", (8, 8)).save(tmp_path / "pareto.png")
    (tmp_path / "rows.parquet").write_bytes(b"rows")
    return {
        "key": "0123abcd",
        "folder": tmp_path / "results",
        "name": "shapes",
        "group": "sweep",
        "tags": ["shapes", "exact"],
        "config": {"mask": {"strength": 0.5}},
        "summary": {"dice/ours": 0.75},
        "tables": {"dice": pd.DataFrame({"edit_type": ["Random", "Pose"], "ours": [0.5, np.nan]})},
        "figures": {"pareto": tmp_path / "pareto.png"},
        "files": [tmp_path / "rows.parquet"],
    }


def publish(tracker: Tracker, run: dict) -> Path:
    place = tracker.publish(**run)
    wandb.teardown()  # its process writes the last records after the run has ended
    assert place is not None
    return Path(place)


def test_offline_run_holds_everything_that_was_published(run, capfd):
    folder = publish(WandbTracker(project="masks"), run)
    assert capfd.readouterr() == ("", "")
    assert folder.parent == run["folder"] / "wandb"
    records = list(read_records(next(folder.glob("run-*.wandb"))))
    about = next(record.run for record in records if record.HasField("run"))
    assert (about.project, about.display_name, about.run_group) == ("masks", "shapes", "sweep")
    assert sorted(about.tags) == ["exact", "shapes"]
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert config["mask"] == {"strength": 0.5}
    summary = {
        item.key: json.loads(item.value_json)
        for record in records
        if record.HasField("summary")
        for item in record.summary.update
    }
    assert summary["dice/ours"] == 0.75
    logged = {
        (item.nested_key[0], item.nested_key[1]): json.loads(item.value_json)
        for record in records
        if record.HasField("history")
        for item in record.history.item
        if len(item.nested_key) > 1
    }
    table = json.loads((folder / "files" / logged["dice", "path"]).read_text())
    assert table == {"columns": ["edit_type", "ours"], "data": [["Random", 0.5], ["Pose", None]]}
    assert (folder / "files" / logged["pareto", "path"]).is_file()
    artifacts = {r.artifact.type: r.artifact for r in records if r.HasField("artifact")}
    (stored,) = artifacts["results"].manifest.contents
    assert (stored.path, stored.local_path) == ("rows.parquet", str(run["files"][0]))


def test_publishing_again_replaces_the_run(run):
    first = publish(WandbTracker(), run)
    second = publish(WandbTracker(), run)
    assert first.name.split("-")[-1] == second.name.split("-")[-1]
    assert list(second.parent.glob("offline-run-*")) == [second]


def test_a_key_is_found_where_wandb_looks_for_it(tmp_path, monkeypatch):
    assert not _has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert _has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not _has_key()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert _has_key()


def test_null_tracker_publishes_nothing(run):
    assert NullTracker().publish(**run) is None
    assert not run["folder"].exists()
