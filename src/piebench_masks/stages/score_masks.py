"""Stage 4, masks: every stored map against the annotation, at all thresholds of its method."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import Sample
from piebench_masks.masks.method import MapMethod
from piebench_masks.metrics import segmentation
from piebench_masks.run import Run, item_name, once
from piebench_masks.stages.masks import map_folder, map_name, read_map
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.stages.variants import edit_thresholds
from piebench_masks.store import Folder

MASK_VERSION = 2
MASK_KEYS = ["item", "threshold"]


@once
def mask_score_folder(run: Run, method: MapMethod) -> Folder:
    parameters = {
        "version": MASK_VERSION,
        "maps": map_folder(run, method).key,
        "binarizer": method.binarizer.name,
        "compat": run.cfg.compat,
    }
    return run.folder("mask_scores", parameters)


@once
def scored_thresholds(run: Run, method: MapMethod) -> list[float]:
    """The sweep, and what is edited under where the sweep leaves it out."""
    return sorted({*method.thresholds, method.threshold, *edit_thresholds(run, method)})


@dataclass
class Scored:
    """Rows of one batch by what gave them (a mask method, a metric), and what could not be."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


class MaskScores:
    """Segmentation metrics; an item is a method of a sample, at all its thresholds."""

    name = "score masks"
    item = "map"

    def __init__(self, run: Run, samples: Sequence[Sample]) -> None:
        self.run, self.samples = run, [sample for sample in samples if sample.mask is not None]

    def prepare(self) -> None:
        """Nothing: masks are scored without a network."""

    def pending(self, *, everything: bool = False) -> list[Work]:
        todo: dict[str, list[str]] = {sample.id: [] for sample in self.samples}
        for name, method in self.run.methods.items():
            rows = mask_score_folder(self.run, method).rows(MASK_KEYS)
            done = set(zip(rows["item"], rows["threshold"], strict=True))
            thresholds = scored_thresholds(self.run, method)
            for sample in self.samples:
                wanted = {(item_name(sample), threshold) for threshold in thresholds}
                stored = map_folder(self.run, method).has(map_name(sample))
                if stored and (everything or not wanted <= done):
                    todo[sample.id].append(name)
        return [Work(sample, tuple(todo[sample.id])) for sample in self.samples if todo[sample.id]]

    def load(self, batch: Batch) -> list[dict[str, Tensor | None]]:
        """The maps to score, None where one is damaged, by method; a sample an entry."""
        return [
            {name: read_map(self.run, self.run.methods[name], work.sample) for name in work.todo}
            for work in batch
        ]

    def compute(self, batch: Batch, loaded: list[dict[str, Tensor | None]]) -> Scored:
        scored = Scored()
        for work, maps in zip(batch, loaded, strict=True):
            assert work.sample.mask is not None
            target = from_coco(work.sample.mask)
            for name, soft_map in maps.items():
                if soft_map is None:
                    reason = "its stored map is damaged: run again, it will be computed anew"
                    scored.failures.append(Failure(self.name, work.sample.id, name, reason))
                else:
                    rows = scored.rows.setdefault(name, [])
                    rows += self._rows(self.run.methods[name], soft_map, target, work.sample)
        return scored

    def _rows(
        self, method: MapMethod, soft_map: Tensor, target: NDArray[np.bool_], sample: Sample
    ) -> list[dict[str, Any]]:
        thresholds = scored_thresholds(self.run, method)
        m, levels = method.binarizer.cut(soft_map, thresholds, target.shape, self.run.cfg.compat)
        scores = segmentation.sweep_scores(m.numpy(), levels.numpy(), target)
        precision = segmentation.average_precision(m.numpy(), target)
        return [
            {"item": item_name(sample), "threshold": threshold, "average_precision": precision}
            | {column: float(values[i]) for column, values in scores.items()}
            for i, threshold in enumerate(thresholds)
        ]

    def store(self, batch: Batch, computed: Scored) -> list[Failure]:
        for name, rows in computed.rows.items():
            mask_score_folder(self.run, self.run.methods[name]).append_rows(rows)
        return computed.failures

    def finish(self) -> None:
        for method in self.run.methods.values():
            mask_score_folder(self.run, method).compact(MASK_KEYS)
