"""A data set with edit types of its own is one file and one YAML (examples/)."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.parsed import DataError
from piebench_masks.data.table import read_samples
from piebench_masks.pipeline import run_pipeline
from piebench_masks.run import Run
from piebench_masks.stages.parse import parse, parsed_folder

EXAMPLES = Path(__file__).parent / "examples"
Configuration = Callable[..., DictConfig]


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    """Of the data set in places/, read by the program in loaders/."""
    (tmp_path / "places").mkdir()
    entries = [
        ["beach.png", "t", "a beach at [noon]", "a beach at [night]"],
        ["road.png", "s", "a road", "a road in [deep snow]"],
        ["field.png", "s", "a field", "a field in autumn"],
    ]
    for picture, *_ in entries:
        Image.new("RGB", (20, 10)).save(tmp_path / "places" / picture)
    (tmp_path / "places/places.json").write_text(json.dumps(entries))
    # A module of another name for each test, as a process imports each module once.
    loader = re.sub(r"\W", "_", tmp_path.name)
    (tmp_path / "loaders").mkdir()
    (tmp_path / f"loaders/{loader}.py").write_text((EXAMPLES / "three_types.py").read_text())
    monkeypatch.syspath_prepend(tmp_path / "loaders")

    def composed(*overrides: str) -> DictConfig:
        with initialize_config_dir(CONF, version_base="1.3"):
            return compose(
                "config",
                [
                    f"hydra.searchpath=[file://{EXAMPLES}]",
                    "dataset=mine",
                    f"dataset.load._target_={loader}.load_places",
                    f"dataset.root={tmp_path}/places",
                    f"artifacts_dir={tmp_path}/artifacts",
                    f"results_dir={tmp_path}/results",
                    "name=run",
                    "tracker=none",
                    *overrides,
                ],
            )

    return composed


def test_the_example_is_short() -> None:
    files = EXAMPLES / "three_types.py", EXAMPLES / "dataset/mine.yaml"
    assert [len(file.read_text().splitlines()) < 40 for file in files] == [True, True]


def test_a_data_set_brings_its_own_types_in_their_order(configuration: Configuration) -> None:
    cfg = configuration()
    console = Console(file=io.StringIO(), record=True, width=200)
    assert run_pipeline(cfg, ["parse"], console) == 0
    assert "3 samples, 0 rejected" in console.export_text()
    samples, edit_types = parse(Run(cfg), Console(quiet=True))
    assert edit_types == ("Season", "Weather", "Time of day")
    assert [s.edit_type for s in samples] == ["Time of day", "Season", "Season"]
    assert [s.target_marked for s in samples] == [("night",), ("deep snow",), ()]
    assert read_samples(parsed_folder(Run(cfg)).path / "samples.parquet") == (samples, edit_types)
    assert len(parse(Run(configuration("limit=2")), Console(quiet=True)).samples) == 2


def test_a_changed_line_of_the_loader_reads_the_data_again(
    configuration: Configuration, tmp_path: Path
) -> None:
    [loader] = (tmp_path / "loaders").iterdir()
    before = parsed_folder(Run(configuration())).key
    assert parsed_folder(Run(configuration("seed=1", "batch_size=3"))).key == before
    loader.write_text(loader.read_text().replace('"editing_instruction": ""', '"x": ""'))
    assert parsed_folder(Run(configuration())).key != before


def test_a_loader_of_two_values_is_told_of_the_third(
    configuration: Configuration, tmp_path: Path
) -> None:
    [loader] = (tmp_path / "loaders").iterdir()
    loader.write_text("def load_places(root, on_error):\n    return [], []\n")
    with pytest.raises(DataError, match=r"load_places returns a tuple.*Parsed\(samples, rej"):
        parse(Run(configuration()), Console(quiet=True))


def test_a_loader_whose_samples_could_not_be_read_again_is_told_so(
    configuration: Configuration, tmp_path: Path
) -> None:
    [loader] = (tmp_path / "loaders").iterdir()
    loader.write_text(
        "from piebench_masks.data.parsed import Parsed\n"
        "from piebench_masks.data.sample import Sample\n"
        "def load_places(root, on_error):\n"
        "    sample = Sample('a', 'a.png', '', '', '', 'Season', '', None, None, 'digest')\n"
        "    return Parsed([sample], [], ('Season',))\n"
    )
    with pytest.raises(DataError, match=r"gives a sample 'a' that cannot be stored"):
        parse(Run(configuration()), Console(quiet=True))
