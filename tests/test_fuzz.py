"""Hostile and sloppy input ends in a table or in one error: a small share of benchmarks/fuzz.py."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from fuzz import TARGETS, outcome

FOUND = {
    "pie_bench_pp": (223, 493),  # an image that is no struct; a damaged file
    "parsed_table": (447,),  # an id without a letter
}
"""Cases that once crashed."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_every_case_ends_in_a_table_or_in_one_error(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    numbers = [*range(TARGETS[name].tested), *FOUND.get(name, ())]
    outcomes = [outcome(name, number, folder) for number in numbers]
    assert {"parsed", "refused"} == set(outcomes)


def test_a_full_run_has_twenty_thousand_cases() -> None:
    assert sum(target.cases for target in TARGETS.values()) >= 20_000
    assert sum(target.tested for target in TARGETS.values()) >= 500
