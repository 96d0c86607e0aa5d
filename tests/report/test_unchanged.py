"""A report that would be the same is left alone; anything else is written anew."""

import json
import os
from pathlib import Path

import pytest
from process import command

from piebench_masks.data.shapes.write import write_shapes

RUN = ["mask=[ours]", "baselines=[oracle]", "limit=2", "tracker=none", "name=one"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a finished run ``one``."""
    write_shapes(tmp_path / "data" / "shapes", per_type=1)
    report(tmp_path)
    return tmp_path


def report(folder: Path, *settings: str) -> dict[str, int]:
    """Run; `written`."""
    done = command(folder, *RUN, *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Dice ↑ by edit type" in done.stdout and "report.html" in done.stdout
    return written(folder)


def written(folder: Path) -> dict[str, int]:
    """Of every file of the report when it was written."""
    results = folder / "results/one"
    names = json.loads((results / "report.json").read_text())["files"]
    return {name: (results / name).stat().st_mtime_ns for name in names}


def test_what_has_not_changed_is_not_written_again(folder: Path) -> None:
    before = written(folder)
    pictures = {"report.html", "pareto.png", "dice.svg", "gallery.png", "tables/editing.json"}
    assert pictures <= before.keys() and any(name.startswith("images/") for name in before)
    assert report(folder, "batch_size=1", "executor.devices=[cpu]") == before
    page = folder / "results/one/report.html"
    page.write_bytes(page.read_bytes()[:-1])
    assert report(folder)["pareto.png"] > before["pareto.png"]
    assert page.read_text().rstrip().endswith("</html>")


@pytest.mark.slow
def test_a_changed_setting_is_a_changed_report_and_leaves_nothing_behind(folder: Path) -> None:
    before = written(folder)
    results = folder / "results/one"
    os.truncate(results / "report.json", 10)
    again = report(folder)
    assert again["report.html"] > before["report.html"] and again.keys() == before.keys()
    after = report(folder, "limit=1", "~editor.turbo_edit")
    assert after["report.html"] > again["report.html"]
    left = {path.name for path in results.iterdir()}
    assert "pareto.png" not in left and "dice.png" in left
    assert not (results / "tables/editing.json").exists()
    (results / "report.json").unlink()
    assert report(folder, "limit=1", "~editor.turbo_edit").keys() == after.keys()
