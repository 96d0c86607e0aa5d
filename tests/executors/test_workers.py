"""How batches are shared out, with workers that are threads and die at every turn."""

import logging
import pickle
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
from executors.conftest import Compute

from piebench_masks.errors import BenchmarkError
from piebench_masks.executors.ray import _Origin, _run_like
from piebench_masks.executors.workers import (
    Answer,
    Message,
    WorkerDiedError,
    serve,
    shared_out,
)
from piebench_masks.runner import Outcome

DEAD = "died"


class Frail:
    """Answers as ``serve`` does, one batch late, until its dice say that it dies."""

    place = "nowhere"

    def __init__(self, dies: Any) -> None:
        self.dies = dies
        self.answers: Queue[Any] = Queue()
        self.answers.put(None)
        self.had: list[Any] = []

    def send(self, message: Message) -> None:
        if message is None:
            self._flush(0)
        elif not isinstance(message, str):
            self.had.append(message)
            self._flush(2)

    def _flush(self, kept: int) -> None:
        while len(self.had) > kept:
            batch = self.had.pop(0)
            self.answers.put(DEAD if self.dies(batch) else Outcome(items=batch[0].number))

    def receive(self) -> Answer:
        answer = self.answers.get()
        if answer is DEAD:
            raise WorkerDiedError("by its dice")
        return answer

    def stop(self) -> None:
        self.had.clear()


class Chatty(Frail):
    """Logs something before each of its answers."""

    def _flush(self, kept: int) -> None:
        self.answers.put(logging.makeLogRecord({"name": "a.method", "msg": "slow", "levelno": 30}))
        super()._flush(kept)


def wait(workers: Sequence[Frail]) -> list[Frail]:
    answering = [worker for worker in workers if not worker.answers.empty()]
    assert answering, "all wait for each other"
    return answering


def numbered(count: int) -> list[Any]:
    return [
        [SimpleNamespace(number=number, sample=SimpleNamespace(id=f"s{number}"))]
        for number in range(count)
    ]


def outcomes(count: int, workers: int, dies: Any) -> Iterator[int]:
    with shared_out(lambda: [partial(Frail, dies)] * workers, wait) as executor:
        for name in ("masks", "edit"):
            stage: Any = SimpleNamespace(name=name)
            yield from (outcome.items for outcome in executor(stage, numbered(count)))


def test_no_batch_is_lost_or_counted_twice() -> None:
    deaths = 0

    def dies(dice: random.Random, batch: Any) -> bool:
        nonlocal deaths
        died = deaths < 3 and dice.random() < 0.3  # no batch can be hit more often than that
        deaths += died
        return died

    for seed in range(200):
        dice, deaths = random.Random(seed), 0
        count, workers = dice.randint(0, 12), dice.randint(1, 4)
        done = outcomes(count, workers, partial(dies, dice))
        assert sorted(done) == sorted([*range(count)] * 2), seed


def test_a_batch_that_kills_every_worker_ends_the_run_and_is_named() -> None:
    with pytest.raises(BenchmarkError, match="Workers died 4 times over sample s3"):
        list(outcomes(8, 2, lambda batch: batch[0].number == 3))


def test_no_more_workers_are_started_than_there_are_batches() -> None:
    started: list[Frail] = []

    def start() -> Frail:
        started.append(Frail(lambda batch: False))
        return started[-1]

    stage: Any = SimpleNamespace(name="masks")
    with shared_out(lambda: [start] * 4, wait) as executor:
        for count, workers in ((0, 0), (1, 1), (3, 3), (1, 3), (9, 4)):
            assert len(list(executor(stage, numbered(count)))) == count
            assert len(started) == workers


def test_what_a_worker_logs_is_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    stage: Any = SimpleNamespace(name="masks")
    with shared_out(lambda: [partial(Chatty, lambda batch: False)], wait) as executor:
        assert len(list(executor(stage, numbered(3)))) == 3
    assert {(record.name, record.message) for record in caplog.records} == {("a.method", "slow")}


def served(stage: Any, *messages: Any) -> list[Any]:
    """Answers of a worker in this thread, whose logging is put back."""
    root, inbox, answers = logging.getLogger(), Queue[Any](), list[Any]()
    before = root.handlers[:], root.level
    for message in (*messages, None):
        inbox.put(message)
    run: Any = SimpleNamespace(counts=Counter)

    def stage_of(name: str, run: Any, samples: Any) -> Any:
        if name == "over":
            raise BenchmarkError("over")
        return stage

    inbox.put("over")
    try:
        serve(lambda: run, stage_of, inbox, answers.append)
    finally:
        logging.captureWarnings(False)
        root.handlers[:], root.level = before
    return answers


def test_warnings_and_log_of_a_worker_are_sent_and_survive_the_way() -> None:
    def compute(batch: Any, loaded: Any) -> None:
        warnings.warn("of a user's method", stacklevel=1)
        logging.getLogger("piebench_masks.x").warning("%s is damaged", Path("a"))

    stage = SimpleNamespace(
        name="masks", prepare=lambda: None, load=lambda batch: None, compute=compute
    )
    stage.store = lambda batch, computed: []
    batch = [SimpleNamespace(sample=SimpleNamespace(id="s"), todo=(1,))]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        answers = served(stage, "masks", batch)
    records = [answer for answer in answers if isinstance(answer, logging.LogRecord)]
    assert "UserWarning: of a user's method" in records[0].getMessage()
    assert records[1].getMessage() == "a is damaged"
    assert [pickle.loads(pickle.dumps(record)).name for record in records] == [
        "py.warnings",
        "piebench_masks.x",
    ]
    kinds = [type(answer) for answer in answers if answer not in records]
    assert kinds == [type(None), Outcome, BenchmarkError]


def test_an_actor_that_does_not_see_a_folder_names_it_and_its_node(tmp_path: Path) -> None:
    origin = _Origin({"artifacts_dir": tmp_path, "dataset.root": tmp_path / "a.png"})
    with pytest.raises(BenchmarkError, match=rf"Ray node .* dataset\.root.*{tmp_path}/a\.png"):
        _run_like(origin, {}, "cpu")
    other = _Origin({}, versions=origin.versions | {"torch": "1.0"})
    with pytest.raises(BenchmarkError, match=r"Ray node .* torch .*this machine 1\.0"):
        _run_like(other, {}, "cpu")


def test_without_ray_the_remedy_is_named(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchmarkError, match=r"pip install 'piebench-masks\[ray\]'"):
        compute("executor=ray")
