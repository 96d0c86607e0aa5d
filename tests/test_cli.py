"""The command as a user meets it: a real process, its words and its exit status."""

from pathlib import Path

import pytest
from process import command


def test_help_names_the_groups_and_what_people_run(tmp_path: Path) -> None:
    done = command(tmp_path, "--help")
    assert done.returncode == 0
    for word in ("dataset", "experiment", "paper", "thresholds", "dry_run"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dataset=pie_bench"], ["dataset.root must be set"]),
        (["dataset=pie_bench", "dataset.root=nowhere"], ["nowhere", "mapping_file.json"]),
        (["model.id=nowhere/at/all", "limit=1"], ["nowhere/at/all", "model.id"]),
        (["comat=exact"], ["Could not override", "did you mean compat?"]),
        (["mask=[our]"], ["mask has no option our: did you mean ours?"]),
        (["thresholds=["], ["thresholds=[", "quote"]),
        (["name=${nope}"], ["nope"]),
        (["+batchsize=4"], ["batchsize is no setting: did you mean batch_size?"]),
        (["results_dir=/proc/nowhere"], ["/proc/nowhere"]),
    ],
)
def test_what_is_missing_is_one_clear_error(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    done = command(tmp_path, *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.count("Error") == 1
    for word in words:
        assert word in done.stderr


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    done = command(tmp_path, "comat=exact", "debug=true")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "did you mean compat?" in done.stderr
