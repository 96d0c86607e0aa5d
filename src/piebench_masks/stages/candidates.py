"""Before the maps: the edits that some mask methods paint and score to choose by, once for all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.data.sample import Sample, item_name
from piebench_masks.editing.editor import Sources
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.method import Painted
from piebench_masks.masks.record import MapError
from piebench_masks.masks.soft_maps import painted
from piebench_masks.run import Run, once
from piebench_masks.stages.latents import Source, latents_folder, load_sources, posteriors
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.store import Folder

VERSION = 1
READS = ("image", "prompts")
"""The sample fields that candidates are painted from."""


@once
def candidates_folder(run: Run, name: str) -> Folder:
    """Keyed by what changes the edits and their measurements, and by no setting of the map."""
    parameters = {
        "version": VERSION,
        "candidates": run.identity(f"candidates.{name}"),
        "latents": latents_folder(run).key,
        "sizes": list(run.sizes),
        "dtype": run.cfg.model.dtype,
        "map_size": run.cfg.model.map_size,
        "compile": run.cfg.model.compile,
        "seed": run.cfg.seed,
    }
    return run.folder("candidates", parameters)


def read_candidates(run: Run, name: str, sample: Sample) -> dict[str, Tensor] | None:
    """What was measured of a sample's candidates; None where it is missing or damaged."""
    return candidates_folder(run, name).read_tensors(_file(sample))


def read_candidate(run: Run, name: str, sample: Sample, number: int) -> NDArray[np.uint8] | None:
    """One of the edits, uint8 [H, W, 3]; None where it is missing or damaged."""
    return candidates_folder(run, name).read_image(f"{item_name(sample, READS)}/{number}.png")


def _file(sample: Sample) -> str:
    return f"{item_name(sample, READS)}.safetensors"


class Tried:
    """The candidates of one method; an item is all of one sample's."""

    item = "sample"

    def __init__(self, run: Run, samples: Sequence[Sample], method: str) -> None:
        self.run, self.samples, self.method = run, samples, method
        self.name = f"candidates {method}"

    def prepare(self) -> None:
        candidates = self.run.methods[self.method].candidates
        assert candidates is not None
        _ = self.run.backbone
        candidates.load(self.run.device)

    def pending(self, *, everything: bool = False) -> list[Work]:
        return [
            Work(sample, (self.method,))
            for sample in self.samples
            if everything or read_candidates(self.run, self.method, sample) is None
        ]

    def load(self, batch: Batch) -> list[Source]:
        return load_sources(self.run, [work.sample for work in batch], encoded=True)

    def compute(self, batch: Batch, loaded: list[Source]) -> list[Painted | BenchmarkError]:
        run, method = self.run, self.run.methods[self.method]
        posterior = posteriors(run, loaded)
        found: list[Painted | BenchmarkError] = []
        for row, source in enumerate(loaded):
            sources = Sources([source.scene], posterior[row : row + 1])
            try:
                found.append(painted(method, run.backbone, sources, run.cfg.seed))
            except MapError as error:
                found.append(error)
        return found

    def store(self, batch: Batch, computed: list[Any]) -> list[Failure]:
        """Edits first, so that no measurement is stored without them."""
        folder = candidates_folder(self.run, self.method)
        failures = []
        for work, result in zip(batch, computed, strict=True):
            if isinstance(result, BenchmarkError):
                failures.append(Failure(self.name, work.sample.id, self.method, str(result)))
                continue
            item = item_name(work.sample, READS)
            edits = {f"{item}/{n}.png": edit.numpy() for n, edit in enumerate(result.edits)}
            folder.write_images(edits)
            folder.write_tensors(_file(work.sample), result.measurements)
        return failures

    def finish(self) -> None:
        """There are no rows to compact."""
