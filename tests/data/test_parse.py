"""The parse stage: when a data set is read, and when its table is enough."""

import io
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.parsed import DataError
from piebench_masks.data.pie_bench import EDIT_TYPES
from piebench_masks.data.sample import SAMPLE_FIELDS, item_name
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.pipeline import run_pipeline
from piebench_masks.run import Run
from piebench_masks.stages.parse import DataSet, parse, parsed_folder

New = Callable[..., Run]


@pytest.fixture
def new(tmp_path: Path) -> New:
    """A run on tmp_path/data/shapes."""

    def run(*overrides: str) -> Run:
        places = [f"{name}_dir={tmp_path}/{name}" for name in ("artifacts", "results", "data")]
        with initialize_config_dir(CONF, version_base="1.3"):
            return Run(compose("config", [*places, "name=run", "tracker=none", *overrides]))

    return run


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    write_shapes(tmp_path / "data/shapes", per_type=1)
    return tmp_path / "data/shapes"


def parsed(run: Run) -> tuple[DataSet, int]:
    """The data set, and how many samples were read from its own files."""
    return parse(run, Console(quiet=True)), run.parsed


def test_a_table_is_enough_the_second_time(new: New, shapes: Path) -> None:
    data, count = parsed(new())
    assert (count, data.edit_types) == (10, EDIT_TYPES)
    assert parsed(new()) == (data, 0)
    assert parsed(new("limit=3")) == (DataSet(data.samples[:3], EDIT_TYPES), 0)
    assert parsed(new("overwrite=always")) == (data, 10)


def test_a_dry_run_does_not_write_the_data_set(new: New, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), record=True, width=200)
    cfg = new("dry_run=true").cfg
    assert run_pipeline(cfg, cfg.stages, console) == 0
    assert "would first write the shapes data set to" in console.export_text()
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_reads_what_is_there_and_writes_nothing(
    new: New, shapes: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    data, count = parsed(new("dry_run=true"))
    assert (len(data.samples), count) == (10, 10)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_moved_data_set_is_not_read_again(new: New, shapes: Path, tmp_path: Path) -> None:
    before = parsed(new())
    shapes.rename(tmp_path / "elsewhere")
    assert parsed(new(f"dataset.root={tmp_path}/elsewhere")) == (before[0], 0)


def test_a_copy_with_other_times_gives_the_same_samples(new: New, shapes: Path) -> None:
    data, _ = parsed(new())
    for path in shapes.rglob("*.*"):
        os.utime(path, (1, 1))
    assert parsed(new()) == (data, 10)


def test_a_corrected_word_renames_only_what_reads_it(new: New, shapes: Path) -> None:
    before, _ = parsed(new())
    mapping = json.loads((shapes / "mapping_file.json").read_text())
    first = before.samples[0].id
    mapping[first]["blended_word"] = "corrected"
    (shapes / "mapping_file.json").write_text(json.dumps(mapping))
    after, count = parsed(new())
    assert count == 10
    for fields in (SAMPLE_FIELDS, ["blended_word"], ["image", "prompts", "mask"]):
        names = [[item_name(s, fields) for s in data.samples] for data in (before, after)]
        changed = [s.id for s, a, b in zip(before.samples, *names, strict=True) if a != b]
        assert changed == ([first] if "blended_word" in fields else [])


def test_a_damaged_table_is_made_again_and_the_log_says_why(
    new: New, shapes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, _ = parsed(new())
    table = parsed_folder(new()).path / "samples.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert parsed(new()) == (data, 10)
    assert "samples.parquet is damaged" in caplog.text
    caplog.clear()
    assert parsed(new()) == (data, 0)
    assert caplog.text == ""


def test_a_table_that_may_not_be_read_is_an_error(
    new: New, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed(new())

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pyarrow.parquet.ParquetFile", refuse)  # root may read everything
    with pytest.raises(DataError, match="Permission denied"):
        parsed(new())


def test_no_place_and_no_way_of_running_is_in_the_key(
    new: New, shapes: Path, tmp_path: Path
) -> None:
    key = parsed_folder(new()).key
    for same in ("limit=3", "batch_size=1", "device=cpu", "seed=3", "dataset.name=mine"):
        assert parsed_folder(new(same)).key == key
    for other in ("dataset.load.border=1", "on_error=skip", "dataset.load.mask_size=32"):
        assert parsed_folder(new(other)).key != key
    description = (parsed_folder(new()).path / "stage.json").read_text()
    assert str(tmp_path) not in json.dumps(json.loads(description)["parameters"])
    shutil.copytree(shapes, tmp_path / "copy")
    assert parsed_folder(new(f"dataset.root={tmp_path}/copy")).key == key
