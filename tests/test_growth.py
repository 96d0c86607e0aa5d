"""Four times the samples are four times the work and memory, counted in calls and bytes."""

import io
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from growth import new_run, score, write_data, write_maps

from piebench_masks.report.mask_tables import dice_table
from piebench_masks.stages.parse import parse
from piebench_masks.stages.scores import mask_scores

TIMES = 4
SLACK = 1.15


def calls(work: Callable[[], object]) -> int:
    """How many functions are called, Python's and C's, in all threads."""
    counted = [0]

    def count(frame: object, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            counted[0] += 1

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return counted[0]


def peak(work: Callable[[], object]) -> int:
    """Bytes held at once at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def grown(count: int, folder: Path, measure: Callable[[Callable[[], object]], int]) -> list[int]:
    """What ``measure`` says of parsing, looking again, scoring, looking again, and the table."""
    write_data(folder / "data", count, pictures=5)
    run, quiet = new_run(folder, "mask=[]", "baselines=[full]"), Console(file=io.StringIO())
    samples: list[Any] = []
    found = [
        measure(lambda: samples.extend(parse(run, quiet).samples)),
        measure(lambda: parse(run, quiet)),
    ]
    assert len(samples) == count
    write_maps(run, samples)
    found += [measure(lambda: score(run, samples)), measure(lambda: score(run, samples))]
    found.append(measure(lambda: dice_table(mask_scores(run, samples))))
    assert len(mask_scores(run, samples)) == count
    return found


@pytest.mark.parametrize(
    ("measure", "count"), [(calls, 125), pytest.param(peak, 500, marks=pytest.mark.slow)]
)
def test_work_and_memory_grow_with_the_samples_and_no_faster(
    measure: Callable[[Callable[[], object]], int], count: int, tmp_path: Path
) -> None:
    grown(8, tmp_path / "first", measure)  # imports and caches
    few = grown(count, tmp_path / "few", measure)
    many = grown(TIMES * count, tmp_path / "many", measure)
    for step, (before, after) in enumerate(zip(few, many, strict=True)):
        assert after <= SLACK * TIMES * before, (step, few, many)
