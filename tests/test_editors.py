"""Several editors in one run: each with settings, edits, scores and costs of its own."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console
from torch import Tensor

from piebench_masks.cli import CONF
from piebench_masks.data.scene import Knows
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.editing.editor import Edited, Editor, Sources
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import MapMethod, Record
from piebench_masks.pipeline import run_pipeline
from piebench_masks.report.methods import BOUNDS
from piebench_masks.run import Run
from piebench_masks.stages.edit import Edit, Painted
from piebench_masks.stages.parse import parse
from piebench_masks.stages.stage import Batch

Start = Callable[..., tuple[int, str, Path]]
TURBO = "piebench_masks.editing.turbo_edit.TurboEdit"
OTHER = f"+editor.other={{_target_: {TURBO}, w: 1.0}}"


def nothing(strength: float, times: int = 1) -> float:
    return strength * times


@dataclass(frozen=True)
class Still(Editor):
    """An editor that leaves every picture as it is; a sample whose source prompt is ``fails``."""

    inversion: Callable[..., float] = nothing
    fails: str = "-"

    def invert(self, backbone: Backbone, sources: Sources) -> Any:
        if any(prompt.startswith(self.fails) for prompt in sources.source_prompts):
            raise RuntimeError("no way to invert this")
        again = backbone.encode_images(sources.images).mean
        torch.testing.assert_close(again, sources.encoded.mean)
        assert len(sources.instructions) == len(sources.blended_words) == len(again)
        return SimpleNamespace(nfe=torch.full((len(again),), int(self.inversion(strength=3))))

    def edit(
        self, backbone: Backbone, sources: Sources, inverted: Any, masks: Tensor, owner: Tensor
    ) -> Edited:
        images, nothing = sources.images[owner], torch.zeros(len(owner), dtype=torch.long)
        return Edited(images, nothing, torch.ones(len(owner), dtype=torch.bool))


STILL = f"{{_target_: {__name__}.Still, inversion: ${{inversion}}}}"
TIMES = "~inversion", f"+inversion={{_target_: {__name__}.nothing, _partial_: true, times: 2}}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, per_type=1)
    return root


@pytest.fixture
def start(data: Path, tmp_path: Path) -> Start:
    """Run with overrides in a folder of that name: failed items, printed text, results."""

    def run(*overrides: str, at: str = "here") -> tuple[int, str, Path]:
        console = Console(file=io.StringIO(), record=True, width=220)
        small = ("limit=3", "batch_size=2", "threads=1", "tracker=none", "name=run")
        masks = "mask=[ours]", "baselines=[empty,oracle]", "fail_on_error=false"
        places = f"artifacts_dir={tmp_path}/{at}/artifacts", f"results_dir={tmp_path}/{at}/results"
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("config", [*small, *masks, *places, f"dataset.root={data}", *overrides])
        failed = run_pipeline(cfg, cfg.stages, console)
        return failed, console.export_text(), tmp_path / at / "results" / "run"

    return run


def scores(results: Path) -> pd.DataFrame:
    """The rows of edits, without those of the bounds."""
    rows = pd.read_parquet(results / "edit_scores.parquet")
    return rows[~rows["method"].isin(BOUNDS)]


def test_editors_stand_beside_each_other_in_the_order_of_the_configuration(start: Start) -> None:
    failed, text, results = start(OTHER, "thresholds=[0.3,0.6]")
    assert failed == 0
    rows = scores(results)
    assert list(rows["editor"].unique()) == ["turbo_edit", "other"]
    # Three samples, each without a mask, under ours twice, and under two trivial masks.
    assert (rows.groupby("editor").size() == 3 * 5).all()
    table = pd.read_csv(results / "tables" / "editing.csv").set_index(["editor", "method"])
    assert table.loc[("turbo_edit", "none"), "psnr"] != table.loc[("other", "none"), "psnr"]
    beside = pd.read_csv(results / "tables" / "editors.csv")
    assert list(beside["editor"][:2]) == ["turbo_edit", "other"]
    assert {"none", "ours", "empty", "oracle"} < {*beside}
    assert "Editors under masks" in text and "Cost of an edit" in text
    for stem in ("pareto", "pareto_1_turbo_edit", "pareto_2_other"):
        assert (results / f"{stem}.svg").stat().st_size > 0
    page = (results / "report.html").read_text()
    assert "doing the edit: other" in page and '"other, none"' in page
    assert (results / "gallery.png").stat().st_size > 0


def test_an_editor_added_later_repaints_nothing_of_the_others(start: Start) -> None:
    _, _, results = start()
    before = scores(results)
    _, text, _ = start(OTHER)
    assert "edit turbo_edit: " not in text and "edit other: " in text and "0 VAE encodes" in text
    after = scores(results)
    pd.testing.assert_frame_equal(after[after["editor"] == "turbo_edit"], before, check_exact=True)
    assert (after["editor"] == "other").sum() == len(before)


def test_the_same_settings_under_another_name_are_the_same_edits(start: Start) -> None:
    start()
    same = f"+editor.mine={{_target_: {TURBO}, steps: 4, w: 1.5, seed: 8128}}"
    _, text, results = start(same)
    assert "nothing to compute: all artifacts are there" in text
    assert set(scores(results)["editor"]) == {"turbo_edit", "mine"}


def test_costs_are_counted_and_depend_on_no_batch_or_interruption(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, results = start()
    rows = scores(results)
    assert (rows["nfe_inverse"] == 5).all()
    assert (rows["nfe_forward"] == np.where(rows["mask_area"] > 0, 6, 1)).all()
    assert not any("second" in name for name in rows)
    cost = pd.read_csv(results / "tables" / "cost.csv")
    distinct = rows.drop_duplicates(["sample", "mask"])
    assert cost["n"].item() == len(distinct)
    assert cost["nfe"].item() == pytest.approx((5 + distinct["nfe_forward"]).mean())
    assert (cost[["seconds_inverse", "seconds_forward"]] > 0).all(axis=None)

    compute, batches = Edit.compute, []

    def interrupted(self: Edit, batch: Batch, loaded: Any) -> list[Painted]:
        batches.append(batch)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return compute(self, batch, loaded)

    monkeypatch.setattr(Edit, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start("batch_size=1", at="there")
    monkeypatch.undo()
    _, _, other = start("batch_size=1", at="there")
    pd.testing.assert_frame_equal(scores(other), rows, check_exact=True)


def test_an_edit_whose_cost_is_missing_is_painted_again(start: Start, tmp_path: Path) -> None:
    start("stages=[parse,masks,edit]")
    files = tmp_path.glob("here/artifacts/edit/*/rows.parquet")
    file = max(files, key=lambda path: len(pd.read_parquet(path)))  # not the reconstructions'
    costs, pictures = pd.read_parquet(file), sorted(file.parent.glob("*/*.png"))
    before = [path.read_bytes() for path in pictures]
    file.unlink()
    _, text, _ = start("stages=[parse,masks,edit]")
    assert f"{len(costs)} items computed" in text
    again = pd.read_parquet(file)
    names = ["item", "mask", "nfe_inverse", "nfe_forward"]
    pd.testing.assert_frame_equal(again[names], costs[names])
    assert [path.read_bytes() for path in pictures] == before


def test_an_editor_gets_pictures_and_texts_and_parts_of_its_own(start: Start) -> None:
    failed, _, results = start(*TIMES, f"+editor.still={STILL}", "limit=2")
    assert failed == 0
    rows = scores(results)
    rows = rows[rows["editor"] == "still"]
    assert (rows["nfe_inverse"] == 6).all() and (rows["nfe_forward"] == 0).all()
    assert rows.groupby("sample")["mask"].nunique().min() > 1
    assert (rows.groupby("sample")["psnr"].nunique() == 1).all()


def test_what_fails_of_one_editor_stops_no_other(start: Start) -> None:
    _, _, results = start()
    failed, _, results = start(
        f"+editor.still={{_target_: {__name__}.Still, fails: a}}",
        "stages=[parse,edit,score,report]",
    )
    told = [json.loads(line) for line in (results / "failures.jsonl").read_text().splitlines()]
    assert failed == len(told) > 0
    assert {entry["stage"] for entry in told} == {"edit still"}
    assert all("no way to invert this" in entry["reason"] for entry in told)
    assert scores(results).groupby("editor")["sample"].nunique()["turbo_edit"] == 3


def others(data: Path, root: Path, *methods: str) -> str:
    for entry in json.loads((data / "mapping_file.json").read_text()).values():
        for method in methods:
            file = root / method / "annotation_images" / entry["image_path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.open(data / "annotation_images" / entry["image_path"]).save(file)
    return f"editor.external.root={root}"


def test_edits_made_elsewhere_stand_in_the_same_table(
    start: Start, data: Path, tmp_path: Path
) -> None:
    root = others(data, tmp_path / "output", "theirs")
    chosen = "editor=[turbo_edit,external]", root, "editor.external.methods={theirs: oracle}"
    failed, _, results = start(*chosen, "model.dtype=float32")
    assert failed == 0
    rows = scores(results)
    assert rows[rows["editor"] == "theirs"][["nfe_inverse", "nfe_forward"]].isna().all(axis=None)
    table = pd.read_csv(results / "tables" / "editing.csv")
    assert set(table.loc[table["method"] == "oracle", "editor"]) == {"turbo_edit", "theirs"}
    assert list(pd.read_csv(results / "tables" / "cost.csv")["editor"]) == ["turbo_edit"]
    root = others(data, tmp_path / "named", "turbo_edit")
    with pytest.raises(BenchmarkError, match=r"has a method turbo_edit.* rename the folder"):
        start("editor=[turbo_edit,external]", root)


def test_no_editor_at_all_is_a_run_of_masks(start: Start) -> None:
    failed, _, results = start("editor=[]")
    assert failed == 0 and scores(results).empty
    assert not (results / "tables" / "editing.csv").exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("inversion.times=1.5", r"inversion\.times is 1\.5; it must be a whole number"),
        ("+inversion.tims=2", r"inversion does not describe a part"),
        ("inversion._target_=nowhere", r"inversion does not describe a part"),
        ("editor.still.fails=3", r"editor\.still\.fails is 3; it must be a text"),
        ("+editor.still.again=3", r"editor\.still does not describe a part"),
        ("+editor.theirs={root: x}", r"editor\.theirs does not describe a part"),
        ("++editor.still=3", r"editor\.still is no editor"),
        ("+editor.own._target_=nowhere.Own", r"editor\.own .* \(No module named 'nowhere'\)"),
        ("+editor.own._target_=json.loads.Own", r"'function' object has no attribute 'Own'\)"),
        ("+editor.own._target_=own", r"own is no import path"),
    ],
)
def test_a_wrong_setting_of_an_editor_or_its_parts_is_named(
    wrong: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    still = f"{STILL[:-1]}, fails: b}}"
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("config", [*TIMES, f"+editor.still={still}", wrong])
    with pytest.raises(BenchmarkError, match=words):
        Run(cfg)
    assert not caplog.records


def test_a_changed_instruction_is_another_edit(data: Path, tmp_path: Path) -> None:
    digests = []
    for text in ("Make it blue", "Make it red"):
        root = tmp_path / text
        write_shapes(root, per_type=1)
        mapping = json.loads((root / "mapping_file.json").read_text())
        for entry in mapping.values():
            entry["editing_instruction"] = text
        (root / "mapping_file.json").write_text(json.dumps(mapping))
        with initialize_config_dir(CONF, version_base="1.3"):
            places = f"dataset.root={root}", f"artifacts_dir={tmp_path}/artifacts"
            run = Run(compose("config", [*places, "limit=1"]))
        [sample] = parse(run, Console(quiet=True)).samples
        assert sample.instruction == text
        digests.append(sample.fingerprint(["instruction"]))
    assert digests[0] != digests[1]


@dataclass(frozen=True)
class Plain(MapMethod):
    """The whole picture, without asking a model."""

    knows: ClassVar[Knows] = "nothing"

    def __call__(self, record: Record) -> Tensor:
        return torch.ones(record.map_size, record.map_size)


@dataclass(frozen=True)
class Copy(Editor):
    """The picture as it is, without asking a model."""

    needs: ClassVar[None] = None  # type: ignore[misc]

    def invert(self, backbone: Any, sources: Sources) -> Any:
        assert backbone is None and sources.posterior is None
        return SimpleNamespace(nfe=torch.zeros(len(sources), dtype=torch.long))

    def edit(
        self, backbone: Any, sources: Sources, inverted: Any, masks: Tensor, owner: Tensor
    ) -> Edited:
        nothing = torch.zeros(len(owner), dtype=torch.long)
        return Edited(sources.images[owner], nothing, nothing == 0)


class Refusing(Copy):
    def __init__(self) -> None:
        raise ValueError("out of\nsorts")


class NoEditor:
    def invert(self, backbone: Any, sources: Sources) -> Any: ...


def test_no_model_is_loaded_for_those_that_use_none(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(StableDiffusion, "from_folder", load)
    own = f"+mask.plain._target_={__name__}.Plain", f"+editor.copy._target_={__name__}.Copy"
    failed, text, results = start("mask=[]", "editor=[]", "baselines=[full,oracle]", *own)
    assert failed == 0 and "0 U-Net rows, 0 VAE encodes" in text
    rows = scores(results)
    assert set(rows["method"]) == {"none", "plain", "full", "oracle"}
    assert np.isinf(rows["psnr"]).all() and (rows["mse"] == 0).all()
    table = pd.read_csv(results / "tables" / "editing.csv")
    assert table["psnr_unedit_part"].isna().all()
    assert "leave the background exactly as it was" in text or "PSNR outside: " in text


def test_what_the_model_lacks_ends_the_run_before_anything_is_computed(
    start: Start, tmp_path: Path
) -> None:
    with pytest.raises(BenchmarkError, match=r"editor turbo_edit needs few_steps.*shapes_turbo"):
        start("model.few_steps=false", "model.id=nobody/has-it")  # not even looked for
    assert not list(tmp_path.glob("here/artifacts/maps"))


def test_an_editor_that_cannot_be_made_is_named_with_its_reason(start: Start) -> None:
    with pytest.raises(BenchmarkError, match=r"editor\.own cannot be made: out of sorts"):
        start(f"+editor.own._target_={__name__}.Refusing")


def test_what_is_no_editor_is_named_with_what_it_lacks(start: Start) -> None:
    with pytest.raises(BenchmarkError, match=r"editor\.bare has no needs, reads, edit: let its"):
        start(f"+editor.bare._target_={__name__}.NoEditor")
