"""Before the edits: what some editors fit to every picture, once for all masks and settings of
their edits. A fit that was stopped goes on from its last saved step.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from piebench_masks.data.sample import Sample, item_name
from piebench_masks.editing.editor import Fit, Fitting
from piebench_masks.errors import BenchmarkError
from piebench_masks.run import Run, once
from piebench_masks.stages.latents import Source, latents_folder, load_sources
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.store import Folder

VERSION = 1
FIT_KEYS = ["item"]
MISSING = (
    "it has no fit that can be read: the failure of its fit says why, or else run again, and it is "
    "fitted anew"
)


@once
def fit_folder(run: Run, editor: str) -> Folder:
    """Keyed by what changes the fits, and by no setting of the edits or masks."""
    parameters = {
        "version": VERSION,
        "fitting": run.identity(f"fitting.{editor}"),
        "latents": latents_folder(run).key,
        "sizes": list(run.sizes),
        "dtype": run.cfg.model.dtype,
        "compile": run.cfg.model.compile,
    }
    return run.folder("fits", parameters)


def fit_item(run: Run, editor: str, sample: Sample) -> str:
    """A sample's name among an editor's fits: by what the fit reads of it."""
    return item_name(sample, _fitting(run, editor).reads)


def fit_name(run: Run, editor: str, sample: Sample) -> str:
    """File of a sample's fit."""
    return f"{fit_item(run, editor, sample)}.safetensors"


def read_fit(run: Run, editor: str, sample: Sample) -> Fit:
    """A stored fit. Raises BenchmarkError where it is missing or damaged."""
    unpack = _fitting(run, editor).unpack
    found = fit_folder(run, editor).read(fit_name(run, editor, sample), unpack)
    if found is None:
        raise BenchmarkError(MISSING)
    return found


def fit_seconds(run: Run, editor: str) -> dict[str, float]:
    """How long fits took, by item; NaN where that is not known."""
    rows = fit_folder(run, editor).rows(FIT_KEYS).reindex(columns=[*FIT_KEYS, "seconds"])
    return dict(zip(rows["item"], rows["seconds"].astype(float), strict=True))


def _fitting(run: Run, editor: str) -> Fitting:
    return run.fittings[editor]


class Computed(NamedTuple):
    """A fit, and how long it took; NaN where all of it had been done before."""

    fit: Fit
    seconds: float


class Fits:
    """The fits of one editor; an item is a sample's.

    batch_size: one, so that a fit is stored as soon as it is done. advance: is told of shares of a
    fit while it is computed in this process.
    """

    item = "fit"
    batch_size = 1

    def __init__(self, run: Run, samples: Sequence[Sample], editor: str) -> None:
        self.run, self.samples, self.editor = run, samples, editor
        self.name = f"fits {editor}"
        self.advance: Callable[[float], None] = lambda share: None

    def prepare(self) -> None:
        _ = self.run.backbone
        _fitting(self.run, self.editor).load(self.run.device)

    def pending(self, *, everything: bool = False) -> list[Work]:
        folder = fit_folder(self.run, self.editor)
        stamps = folder.stamps(FIT_KEYS)

        def is_whole(sample: Sample) -> bool:
            stamp = stamps.get((fit_item(self.run, self.editor, sample),), ())
            return folder.is_whole(fit_name(self.run, self.editor, sample), *stamp)

        return [
            Work(sample, (self.editor,))
            for sample in self.samples
            if everything or not is_whole(sample)
        ]

    def load(self, batch: Batch) -> list[Source]:
        return load_sources(self.run, [work.sample for work in batch], encoded=False)

    def compute(self, batch: Batch, loaded: list[Source]) -> list[Computed]:
        run, fitting = self.run, _fitting(self.run, self.editor)
        model = str(run.identity("model")["weights"])
        computed = []
        for work, source in zip(batch, loaded, strict=True):
            done = 0.0

            def progress(share: float) -> None:
                nonlocal done
                done += share
                self.advance(share)

            started = time.perf_counter()
            checkpoint = fit_folder(run, self.editor).path_of(self._checkpoint(work.sample))
            fit = fitting(
                run.backbone, source.scene, model=model, checkpoint=checkpoint, progress=progress
            )
            seconds = time.perf_counter() - started
            computed.append(Computed(fit, seconds / done if done else float("nan")))
        return computed

    def store(self, batch: Batch, computed: list[Computed]) -> list[Failure]:
        """Fits first, so that none is known without its file, and no checkpoint is lost before."""
        folder = fit_folder(self.run, self.editor)
        for work, (fit, seconds) in zip(batch, computed, strict=True):
            name = fit_name(self.run, self.editor, work.sample)
            stamp = folder.write_bytes(name, fit.pack(folder.origin))
            item = {"item": fit_item(self.run, self.editor, work.sample)}
            folder.append_rows([item | {"seconds": seconds} | stamp._asdict()])
            folder.remove(self._checkpoint(work.sample))
        return []

    def finish(self) -> None:
        fit_folder(self.run, self.editor).compact(FIT_KEYS)

    def _checkpoint(self, sample: Sample) -> str:
        return f"{fit_item(self.run, self.editor, sample)}.checkpoint"
