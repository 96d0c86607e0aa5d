"""Whoever changes a line of their own part gets its items again, and no others.

The parts are the five programs of docs/extending.md, run from the command line.
"""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from test_documents import PROGRAM_LINES, complete_files, run, write_files, write_places

from piebench_masks.data.shapes.write import write_shapes

PROGRAMS = ("my_mask.py", "my_editor.py", "my_metric.py", "my_data.py", "my_model.py")
WITHOUT_REPORT = (
    "log=json tracker=none threads=1 thresholds=one devices=null stages=[parse,masks,edit,score]"
)
PARTS = (
    "PYTHONPATH=. piebench-masks limit=2 mask=[ours] baselines=[] metrics=shapes "
    "+mask.edges._target_=my_mask.Edges +editor.tint._target_=my_editor.Tint "
    f"+metrics.edges._target_=my_metric.EdgesKept {WITHOUT_REPORT}"
)
"""Of each of two samples two editors make three edits: without a mask and under two."""
PLACES = (
    "PYTHONPATH=. piebench-masks --config-dir . dataset=places dataset.root=places mask=[ours] "
    "baselines=[] +mask.edges._target_=my_mask.Edges editor=[] "
    f"+editor.tint._target_=my_editor.Tint metrics=shapes {WITHOUT_REPORT}"
)
TOY = (
    "PYTHONPATH=. piebench-masks --config-dir . model=toy limit=2 mask=[diffedit] baselines=[] "
    "mask.diffedit.threshold=2 +mask.edges._target_=my_mask.Edges editor=[diffedit] "
    f"+editor.tint._target_=my_editor.Tint metrics=shapes {WITHOUT_REPORT}"
)
TOY_FOLDER = """mkdir -p toy && echo '{"_class_name": "Toy"}' > toy/model_index.json"""
METRICS = 5
"""Those of metrics=shapes."""


def computed(command: str, folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """What a run adds: items by the stage that computed any, folders of artifacts by their kind."""
    before = set(folder.glob("artifacts/*/*"))
    events = [json.loads(line) for line in run(command, folder).splitlines()]
    stages = {event["stage"]: event["computed"] for event in events if event["event"] == "stage"}
    added = Counter(path.parent.name for path in set(folder.glob("artifacts/*/*")) - before)
    return {stage: count for stage, count in stages.items() if count}, dict(added)


def change(program: Path, line: str, other: str) -> None:
    """Replace a part of one line of the program, which must be there once."""
    text = program.read_text()
    assert text.count(line) == 1, f"{program.name} has no single {line!r}"
    program.write_text(text.replace(line, other))


def finished(command: str, folder: Path) -> Path:
    """The folder, after a run that computed something and a second one that computed nothing."""
    write_files(folder)
    assert {"masks", "cut masks"} < computed(command, folder)[0].keys()
    assert computed(command, folder) == ({}, {})
    return folder


@pytest.fixture(scope="module")
def parts_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_shapes(folder / "data" / "shapes", per_type=1)
    return finished(PARTS, folder)


@pytest.fixture
def parts(parts_run: Path, tmp_path: Path) -> Path:
    """A finished run of one's own parts, as a copy."""
    return shutil.copytree(parts_run, tmp_path / "parts")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_part_is_one_short_file(program: str) -> None:
    lines = [line for line in complete_files()[program].splitlines() if line]
    assert len(lines) - 1 <= PROGRAM_LINES  # the first says the file's name


def test_a_changed_mask_method_is_computed_again_and_no_other(parts: Path) -> None:
    change(parts / "my_mask.py", "self.reach)[0]\n", "self.reach)[0].neg()\n")
    items, folders = computed(PARTS, parts)
    assert items == {
        "masks": 2,
        "cut masks": 2,
        "edit turbo_edit": 2,
        "edit tint": 2,
        "score masks": 2,
        "score edits turbo_edit": 2,
        "score edits tint": 2,
    }
    assert folders == {"maps": 1, "masks": 1, "mask_scores": 1}  # edits go by their masks


@pytest.mark.slow
def test_a_changed_editor_is_computed_again_and_no_other(parts: Path) -> None:
    change(parts / "my_editor.py", "self.opacity * inside)", "self.opacity * inside / 2)")
    items, folders = computed(PARTS, parts)
    assert items == {"edit tint": 6, "score edits tint": 6}
    assert folders == {"edit": 1, "edit_scores": METRICS + 1}


@pytest.mark.slow
def test_a_changed_metric_is_computed_again_and_no_other(parts: Path) -> None:
    change(parts / "my_metric.py", ".mean(axis=1)", ".max(axis=1)")
    items, folders = computed(PARTS, parts)
    assert items == {
        "score edits turbo_edit": 6,
        "score edits tint": 6,
        "score edits reconstruction": 2,
        "score edits bounds": 4,
    }
    assert folders == {"edit_scores": 4}  # one of each editor and the bounds: other metrics' stay


@pytest.mark.slow
def test_a_changed_loader_reads_the_data_again_and_computes_what_came_out_otherwise(
    tmp_path: Path,
) -> None:
    write_places(tmp_path / "places")
    finished(PLACES, tmp_path)
    change(tmp_path / "my_data.py", '"blended_word": ""', '"blended_word": "sea"')
    assert computed(PLACES, tmp_path) == ({"parse": 3}, {"parse": 1})  # nothing here reads it
    change(tmp_path / "my_data.py", 'prompt": edited', "prompt\": edited.replace('night', 'dawn')")
    items, folders = computed(PLACES, tmp_path)
    # One sample's: its map, which reads prompts, one edit under it, CLIP's scores of all edits and
    # of the source.
    assert items == {
        "parse": 3,
        "masks": 1,
        "cut masks": 1,
        "edit tint": 1,
        "score masks": 1,
        "score edits tint": 3,
        "score edits bounds": 1,
    }
    assert folders == {"parse": 1}


@pytest.mark.slow
def test_a_changed_model_computes_again_what_asks_it(tmp_path: Path) -> None:
    write_shapes(tmp_path / "data" / "shapes", per_type=1)
    run(TOY_FOLDER, tmp_path)
    finished(TOY, tmp_path)
    change(tmp_path / "my_model.py", ").tanh() *", ").sigmoid() *")
    items, folders = computed(TOY, tmp_path)
    assert items == {
        "masks": 2,  # diffedit's: edges asks no model
        "cut masks": 2,
        "edit diffedit": 6,
        "edit tint": 2,  # under the masks that are others now
        "edit reconstruction": 2,
        "score masks": 2,
        "score edits diffedit": 6,
        "score edits tint": 2,
        "score edits reconstruction": 2,
    }
    assert folders == {
        "latents": 1,
        "maps": 1,
        "masks": 1,
        "mask_scores": 1,
        "edit": 2,
        "edit_scores": 2 * METRICS,
    }
