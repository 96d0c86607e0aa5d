"""Scores of edits: each metric under a key of its own, computed once, and alone where it is new."""

import importlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.pie_bench import load_pie_bench
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics import all_columns
from piebench_masks.metrics.clip import Clip
from piebench_masks.metrics.column import column_of, write_columns
from piebench_masks.metrics.lpips import Lpips
from piebench_masks.pipeline import run_pipeline
from piebench_masks.run import Run
from piebench_masks.search import front_hypervolume
from piebench_masks.stages.edit import Edit, edit_folder, edit_name
from piebench_masks.stages.score_edits import EditScores, edit_score_folder, read_edit
from piebench_masks.stages.variants import Variants

METRIC = """
    import numpy as np
    from piebench_masks.metrics.column import Column

    class Brightness:
        def __init__(self, device, factor=1.0):
            self.device, self.factor = device, factor
            self.columns = {"brightness": Column("Brightness", "up")}

        def __call__(self, case, edited):
            if case.source_prompt.startswith("REFUSED"):
                raise ValueError("too dark")
            return {"brightness": self.factor * edited.mean(axis=(1, 2, 3))}
"""
MINE = "+metrics.mine={_target_: my_metric.Brightness}"
Start = Callable[..., int]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two samples and an edit of each, made elsewhere."""
    root = tmp_path / "data" / "shapes"
    write_shapes(root, per_type=1)
    for entry in list(json.loads((root / "mapping_file.json").read_text()).values())[:2]:
        file = tmp_path / "output" / "mine" / "annotation_images" / entry["image_path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (len(entry["image_path"]),) * 3).save(file)
    return root


@pytest.fixture
def start(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Score and report with overrides and a metric of that source: number of failed items."""
    monkeypatch.syspath_prepend(tmp_path / "modules")
    (tmp_path / "modules").mkdir()

    def run(*overrides: str, source: str = METRIC) -> int:
        (tmp_path / "modules" / "my_metric.py").write_text(dedent(source))
        sys.modules.pop("my_metric", None)
        importlib.invalidate_caches()
        settings = ["experiment=external", "dataset=shapes", "limit=2", "metrics=shapes"]
        settings += [f"dataset.root={data}", f"editor.external.root={tmp_path}/output"]
        settings += ["tracker=none", "name=run", "~metrics.clip", f"results_dir={tmp_path}/results"]
        settings += [f"artifacts_dir={tmp_path}/artifacts", "fail_on_error=false", *overrides]
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("config", settings)
        return run_pipeline(cfg, cfg.stages, Console(file=io.StringIO()))

    yield run
    sys.modules.pop("my_metric", None)


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[], dict[str, tuple[int, int]]]:
    """By key: when the rows of a folder of scores were written, and how many there are."""

    def look() -> dict[str, tuple[int, int]]:
        files = (tmp_path / "artifacts" / "edit_scores").glob("*/rows.parquet")
        return {f.parent.name: (f.stat().st_mtime_ns, len(pd.read_parquet(f))) for f in files}

    return look


def table(tmp_path: Path) -> pd.DataFrame:
    return pd.read_parquet(tmp_path / "results" / "run" / "edit_scores.parquet")


Look = Callable[[], dict[str, tuple[int, int]]]


def test_a_metric_that_is_added_scores_itself_alone(
    start: Start, stored: Look, tmp_path: Path
) -> None:
    assert start() == 0
    before, rows = stored(), table(tmp_path)
    assert len(before) == 4
    assert start(MINE) == 0
    after = stored()
    assert before.items() <= after.items() and len(after) == 5
    assert {count for _, count in after.values()} == {2 + 4}  # with the bounds of two samples
    pd.testing.assert_frame_equal(
        table(tmp_path)[[*rows]].drop(columns="protocol_digest"),
        rows.drop(columns="protocol_digest"),
    )
    assert table(tmp_path)["brightness"].notna().all()


def test_a_changed_body_of_ones_own_metric_is_computed_anew_and_nothing_else(
    start: Start, stored: Look, tmp_path: Path
) -> None:
    assert start(MINE) == 0
    before, rows = stored(), table(tmp_path)
    assert start(MINE) == 0
    assert stored() == before
    assert start(MINE, source=METRIC.replace("edited.mean", "2 * edited.mean")) == 0
    assert before.items() <= stored().items() and len(stored()) == len(before) + 1
    changed, others = table(tmp_path), ["brightness", "protocol_digest"]
    assert (changed["brightness"] == 2 * rows["brightness"]).all()
    pd.testing.assert_frame_equal(changed.drop(columns=others), rows.drop(columns=others))
    assert set(changed["protocol_digest"]).isdisjoint(rows["protocol_digest"])
    assert start(MINE.replace("Brightness", "Brightness, factor: 3")) == 0
    assert (table(tmp_path)["brightness"] == 3 * rows["brightness"]).all()


def test_a_metric_that_fails_costs_the_others_nothing(start: Start, tmp_path: Path) -> None:
    assert start(MINE, source=METRIC.replace('"REFUSED"', '""')) == 2 + 4
    rows = table(tmp_path)
    assert rows["psnr"].notna().all() and rows["brightness"].isna().all()
    failures = (tmp_path / "results" / "run" / "failures.jsonl").read_text()
    assert failures.count("metrics.mine: ValueError: too dark") == 2 + 4
    assert start(MINE) == 0
    assert table(tmp_path)["brightness"].notna().all()


def test_columns_lie_beside_the_scores_and_heal(start: Start, tmp_path: Path) -> None:
    assert start(MINE) == 0
    files = list((tmp_path / "artifacts" / "edit_scores").glob("*/columns.json"))
    before = [file.read_text() for file in files]
    assert len(files) == 5 and any('"Brightness"' in text for text in before)
    files[0].write_text('{"psnr": 1}')
    assert start(MINE) == 0
    assert [file.read_text() for file in files] == before


def run_of(root: Path, folder: Path, *overrides: str) -> Run:
    settings = [f"dataset.root={root}", f"artifacts_dir={folder}/artifacts", "mask=[]"]
    settings += ["baselines=[oracle]", "metrics=shapes", *overrides]
    with initialize_config_dir(CONF, version_base="1.3"):
        return Run(compose("config", settings))


def test_reading_a_damaged_edit_reports_it_and_leaves_it_to_be_painted_anew(
    data: Path, tmp_path: Path
) -> None:
    run = run_of(data, tmp_path)
    samples = load_pie_bench(data, mask_size=64, border=0, on_error="raise").samples[:1]
    edit = Variants(run).of(samples[0], "turbo_edit")[0]
    folder = edit_folder(run, "turbo_edit")
    name = edit_name(run, "turbo_edit", samples[0], edit.name)
    folder.write_bytes(name, b"no picture")
    [work] = EditScores(run, samples, "turbo_edit").pending()
    [(cases, [error])] = EditScores(run, samples, "turbo_edit").load([work])
    assert isinstance(error, BenchmarkError) and "is damaged: run again" in str(error)
    with pytest.raises(BenchmarkError, match="is damaged"):
        read_edit(run, samples[0], edit, next(iter(cases.values())).source.shape)
    assert folder.path_of(name).read_bytes() == b"no picture"
    [painting] = Edit(run, samples, "turbo_edit").pending()
    assert edit.name in [variant.name for variant in painting.todo]


def test_no_key_of_scores_holds_a_path_or_how_they_are_computed(data: Path, tmp_path: Path) -> None:
    run = run_of(data, tmp_path)
    other = run_of(data, tmp_path, "+metrics.clip.rows=3", "+metrics.pixel.device=cpu")
    for metric in run.scorers:
        folder = edit_score_folder(run, "turbo_edit", metric)
        parameters = json.loads((folder.path / "stage.json").read_text())["parameters"]
        assert "/" not in json.dumps(parameters)
        assert edit_score_folder(other, "turbo_edit", metric) == folder


def test_a_metric_without_a_line_about_devices_runs_on_the_runs_device(
    data: Path, tmp_path: Path
) -> None:
    run = run_of(data, tmp_path, "device=cpu", "+metrics.pixel.device=meta")
    devices = {name: getattr(one.metric, "device", None) for name, one in run.scorers.items()}
    assert devices == {
        "pixel": "meta",
        "lpips": "cpu",
        "clip": "cpu",
        "target_error": None,
        "change": None,
    }


def test_the_searchs_area_asks_columns_for_their_roles(tmp_path: Path) -> None:
    columns = all_columns({"a": Lpips("near"), "b": Clip("like")})
    distance = column_of("background", columns, columns)
    agreement = column_of("edit", columns, columns)
    rows = pd.DataFrame({"editor": "e", "method": "ours", "threshold": [0.1, 0.1, 0.2, 0.2]})
    rows["sample"], both = ["s", "t", "s", "t"], ("s", "t")
    rows[distance], rows[agreement] = [0.4, 0.6, 0.2, 0.2], [60.0, 60.0, 10.0, np.inf]
    rows.to_parquet(tmp_path / "edit_scores.parquet")
    write_columns(tmp_path / "columns.json", columns)
    expected = 0.5 * 0.6 + 0.3 * 0.1
    assert front_hypervolume(tmp_path, "ours", (), both) == pytest.approx(expected)
    assert front_hypervolume(tmp_path, "other", (), both) == 0
    assert agreement is not None
    unbounded = columns | {agreement: replace(columns[agreement], bounds=None)}
    write_columns(tmp_path / "columns.json", unbounded)
    with pytest.raises(BenchmarkError, match="a column of the role edit that has bounds"):
        front_hypervolume(tmp_path, "ours", (), both)
