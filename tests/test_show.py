"""Looking at finished runs: one in full, several beside each other, and what is none."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from process import command

from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.report.results import read_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run ``one`` and its first words; one scene of each edit type."""
    here = tmp_path_factory.mktemp("show")
    write_shapes(here / "data" / "shapes", per_type=1)
    done = command(here, *RUN, "name=one", "log=json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    (here / "said.jsonl").write_text(done.stdout)
    return here


RUN = ["mask=[ours]", "baselines=[oracle]", "limit=2", "tracker=none"]


def test_one_run_is_printed_with_its_tables_and_where_it_comes_from(folder: Path) -> None:
    done = command(folder, "show", "results/one")
    assert done.returncode == 0 and done.stderr == ""
    dice = pd.read_csv(folder / "results/one/tables/dice_by_edit_type.csv")
    for words in ("Dice ↑ by edit type", "Editing", "Overall", f"{dice['ours'].iloc[-1]:.2f}"):
        assert words in done.stdout
    assert "2 samples of shapes" in done.stdout and "results/one/report.html" in done.stdout


def test_several_runs_stand_beside_each_other(folder: Path) -> None:
    assert command(folder, *RUN, "name=two", "strength=0.75", "quiet=true").returncode == 0
    done = command(folder, "show", "results/one", "results/two")
    assert done.returncode == 0
    runs = [read_run(folder / "results" / name) for name in ("one", "two")]
    dice = [
        run.tables["mask_methods"].frame.set_index("method").loc["ours", "dice"] for run in runs
    ]
    (line,) = [line for line in done.stdout.splitlines() if all(f"{d:.4f}" in line for d in dice)]
    assert "ours" in line and line.index(f"{dice[0]:.4f}") < line.rindex(f"{dice[1]:.4f}")
    column = runs[0].tables["editing"].column_of("background")
    assert column is not None
    shown = runs[0].tables["editing"].formats[column]
    assert f"Edits: {shown.header}" in done.stdout  # in the unit that its header names
    value = runs[0].tables["editing"].frame.set_index("method").loc["ours", column]
    assert f"{value * shown.scale:.{(shown.digits or 0) + 1}f}" in done.stdout


def test_runs_of_several_protocols_are_refused(folder: Path) -> None:
    shutil.copytree(folder / "results" / "one", folder / "results" / "box")
    file = folder / "results" / "box" / "provenance.json"
    facts = json.loads(file.read_text())
    (digest,) = facts["protocol"].values()
    for protocol, status, said in (
        ({"box": digest}, 1, "several protocols (one official, box box)"),
        ({"official": "f4dd5db0a071"}, 0, "WARNING: switches of the protocol, or metrics"),
    ):
        file.write_text(json.dumps(facts | {"protocol": protocol}))
        done = command(folder, "show", "results/one", "results/box")
        assert done.returncode == status and said in done.stdout + done.stderr


def test_how_it_is_used_is_said(folder: Path) -> None:
    done = command(folder, "show", "--help")
    assert done.returncode == 0 and "show results/RUN" in done.stdout


def test_in_a_narrow_terminal_no_cell_is_cut(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = command(folder, "show", "results/one").stdout
    tables = [line for line in text.splitlines() if line.startswith(("│", "┃"))]
    assert tables and max(map(len, tables)) <= 60 and "…" not in text
    assert "turbo_edit" in text and "Left out here for want of room" in text
    dice = pd.read_csv(folder / "results/one/tables/mask_methods.csv").set_index("method")
    mean, low, high = dice.loc["ours", ["dice", "dice_low", "dice_high"]]
    assert f"{mean:.3f} [{low:.3f}, {high:.3f}]" in text


@pytest.mark.parametrize("arguments", [["nowhere"], ["data"], []])
def test_what_is_no_run_is_one_clear_error(folder: Path, arguments: list[str]) -> None:
    done = command(folder, "show", *arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
    assert "results/" in done.stderr
    assert all(word in done.stderr for word in arguments)


def test_a_run_is_read_without_torch() -> None:
    code = "import sys, piebench_masks.show; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_json_log_is_an_event_a_line(folder: Path) -> None:
    events = [json.loads(line) for line in (folder / "said.jsonl").read_text().splitlines()]
    assert all({"time", "event"} <= set(event) for event in events)
    stages = {e["stage"]: e["computed"] for e in events if e["event"] == "stage"}
    assert stages["parse"] == 10 and stages["masks"] == 4
    assert all(e["done"] <= e["total"] for e in events if e["event"] == "progress")
    written = {e["what"]: e["place"] for e in events if e["event"] == "written"}
    assert (folder / written["report"]).is_file()
    assert (events[-1]["event"], events[-1]["failed"]) == ("end", 0)
    assert events[-1]["results"] == "results/one"


def test_json_log_names_failures_and_errors(folder: Path) -> None:
    broken = folder / "broken"
    write_shapes(broken, per_type=1)
    data = ["dataset.root=broken", "limit=2", "name=broken", "log=json"]
    data.append("artifacts_dir=others")  # its images are those of run one
    assert command(folder, *RUN, *data, "stages=[parse]").returncode == 0
    victim, entry = next(iter(json.loads((broken / "mapping_file.json").read_text()).items()))
    image = broken / "annotation_images" / entry["image_path"]
    times = image.stat()
    image.write_bytes(b"\0" * times.st_size)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if the disk had gone bad
    done = command(folder, *RUN, *data, "fail_on_error=false")
    assert done.returncode == 1
    events = [json.loads(line) for line in done.stdout.splitlines()]
    failures = [event for event in events if event["event"] == "failure"]
    assert failures and {event["sample_id"] for event in failures} == {victim}
    assert events[-1]["failed"] == len(failures)
    stopped = command(folder, *RUN, *data, "fail_on_error=true")
    assert stopped.returncode == 1
    error = json.loads(stopped.stderr)
    assert error["event"] == "error" and victim in error["message"]


def test_quiet_prints_tables_only(folder: Path) -> None:
    done = command(folder, *RUN, "name=one", "quiet=true")
    assert done.returncode == 0 and done.stderr == ""
    assert "Dice ↑ by edit type" in done.stdout
    for words in ("cached", "nothing to compute", "report.html", "items computed", "VOID"):
        assert words not in done.stdout
