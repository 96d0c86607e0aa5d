"""What identifies a metric, what it is shown, and what it must give."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import save_file

import piebench_masks
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity
from piebench_masks.metrics import Metric, all_columns, device_argument, scores_of
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.clip import Clip
from piebench_masks.metrics.column import Column
from piebench_masks.metrics.lpips import Lpips
from piebench_masks.metrics.pixel import Pixel
from piebench_masks.metrics.structure import Structure
from piebench_masks.weights import WeightsError

PRETRAINED = Path(piebench_masks.__file__).parent / "pretrained"
Make = Callable[..., Metric]


def clip(folder: Path, **settings: object) -> Metric:
    return Clip(model=f"local-dir:{folder}", pretrained=None, **settings)  # type: ignore[arg-type]


def lpips(folder: Path, **settings: object) -> Metric:
    return Lpips(backbone=folder / "features.safetensors", **settings)  # type: ignore[arg-type]


def structure(folder: Path, **settings: object) -> Metric:
    return Structure(model=str(folder), **settings)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights, a config, and what else lies beside them."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("open_clip_model", "features", "model"):
        save_file({"a": np.zeros(3)}, folder / f"{name}.safetensors")
    for name in ("open_clip_config.json", "config.json", "README.md", ".lock"):
        (folder / name).write_text("{}")
    return folder


def test_columns_are_known_without_weights(tmp_path: Path) -> None:
    for make in (clip, lpips, structure):
        assert make(tmp_path / "nowhere").columns


@pytest.mark.parametrize("make", [clip, lpips, structure])
def test_a_metric_is_its_weights_contents_and_not_their_place_nor_how_it_is_computed(
    make: Make, folder: Path, tmp_path: Path
) -> None:
    before = part_identity(make(folder))
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "README.md").write_text("read me")
    (moved / ".lock").write_text("now")
    assert part_identity(make(moved, device="cuda", rows=3)) == before
    assert str(tmp_path) not in json.dumps(before)
    for weights in moved.glob("*.safetensors"):
        save_file({"a": np.ones(3)}, weights)
    assert part_identity(make(moved)) != before


def test_settings_that_change_numbers_change_the_metric(folder: Path) -> None:
    known = [
        *(part_identity(lpips(folder, weighted=weighted)) for weighted in (True, False)),
        *(part_identity(structure(folder, input_range=r)) for r in ("0..1", "0..255")),
        *(part_identity(clip(folder, name=name)) for name in ("clip", "other")),
        part_identity(Lpips()),
        *(part_identity(Structure(revision=revision)) for revision in ("main", "0123")),
        *(part_identity(Clip(pretrained=pretrained)) for pretrained in ("openai", "laion2b")),
    ]
    assert len({json.dumps(identity) for identity in known}) == len(known)
    assert part_identity(Pixel(rows=1)) == part_identity(Pixel())


def test_weights_in_a_file_are_their_content(folder: Path) -> None:
    file = folder / "model.safetensors"
    before = part_identity(Clip(pretrained=str(file)))
    save_file({"a": np.ones(3)}, file)
    assert part_identity(Clip(pretrained=str(file))) != before
    assert str(file) not in json.dumps(before)


def test_weights_that_are_not_there_are_one_clear_error(tmp_path: Path) -> None:
    for make in (clip, lpips):
        with pytest.raises(WeightsError, match=r"(?s)nowhere.*what to do:"):
            part_identity(make(tmp_path / "nowhere"))


@dataclass(frozen=True)
class Seen:
    """Remembers what it was shown."""

    reads: ClassVar[tuple[str, ...]] = ("image",)
    columns: ClassVar[dict[str, Column]] = {"seen": Column("Seen", "up")}
    cases: list[EditCase] = field(default_factory=list)

    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        self.cases.append(case)
        return {"seen": np.zeros(len(edited))}


def test_a_metric_is_shown_what_it_says_that_it_reads(noisy: tuple[EditCase, np.ndarray]) -> None:
    case, edited = noisy
    metric = Seen()
    scores_of(metric, case, edited)
    assert metric.cases == [EditCase(case.source, None, None, "", "")]
    scores_of(metric_of_all := AllSeen(), case, edited)
    assert metric_of_all.cases[0].mask is case.mask
    assert metric_of_all.cases[0].target_prompt == case.target_prompt


class AllSeen:
    """Does not say what it reads, and gives what it has no column for."""

    columns: ClassVar[dict[str, Column]] = {"seen": Column("Seen", "up")}

    def __init__(self, gives: str = "seen") -> None:
        self.gives, self.cases = gives, list[EditCase]()

    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        self.cases.append(case)
        return {self.gives: np.zeros(len(edited))}


def test_what_a_metric_gives_are_its_columns(noisy: tuple[EditCase, np.ndarray]) -> None:
    with pytest.raises(BenchmarkError, match="AllSeen gives other, but its columns are seen"):
        scores_of(AllSeen("other"), *noisy)


def test_two_metrics_cannot_share_a_column() -> None:
    with pytest.raises(BenchmarkError, match=r"metrics\.b has a column lpips, and so has another"):
        all_columns({"a": Lpips(), "b": Lpips()})


def test_the_runs_device_goes_to_metrics_that_take_one() -> None:
    assert device_argument(Lpips, {"name": "lpips"}, "cuda:1") == {"device": "cuda:1"}
    assert device_argument(Lpips, {"device": None}, "cuda:1") == {"device": "cuda:1"}
    assert device_argument(Lpips, {"device": "cpu"}, "cuda:1") == {}
    assert device_argument(AllSeen, {}, "cuda:1") == {}
