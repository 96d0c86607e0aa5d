"""Stage 4, masks: every stored map against the annotation, at all thresholds of its method."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.data.sample import Sample
from piebench_masks.identity import part_identity
from piebench_masks.metrics import segmentation
from piebench_masks.protocol import Casing
from piebench_masks.run import Run, once
from piebench_masks.stages.cases import edited_part
from piebench_masks.stages.maps import has_map, map_folder, map_item, read_map
from piebench_masks.stages.masks import DAMAGED, edit_thresholds
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.store import Folder

MASK_VERSION = 4
MASK_KEYS = ["item", "threshold"]


@once
def annotation_casing(run: Run) -> Casing:
    """How masks are annotated under the first protocol, whatever else it says of edits."""
    casing = run.protocols[run.protocol].casing
    return Casing(border=casing.border, part="box" if casing.part == "box" else "mask")


@once
def mask_score_folder(run: Run, name: str) -> Folder:
    parameters = {
        "version": MASK_VERSION,
        "maps": map_folder(run, name).key,
        "binarizer": part_identity(run.methods[name].cutter),
        "compat": run.cfg.compat,
        **annotation_casing(run).unusual,
    }
    return run.folder("mask_scores", parameters)


@once
def scored_thresholds(run: Run, name: str) -> list[float]:
    """The sweep, and what is edited under where the sweep leaves it out."""
    method = run.methods[name]
    return sorted({*method.thresholds, method.threshold, *edit_thresholds(run, name)})


def mask_score_item(run: Run, name: str, sample: Sample) -> str:
    """A sample's name among a method's scores: by what its map and the annotation depend on."""
    return map_item(run, name, sample, *sorted(annotation_casing(run).fields))


@dataclass
class Scored:
    """Rows of one batch by what gave them (a mask method, a metric), and what could not be."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    damaged: list[tuple[Sample, Any]] = field(default_factory=list)


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
        for name in self.run.methods:
            rows = mask_score_folder(self.run, name).rows(MASK_KEYS)
            scored_pairs = set(zip(rows["item"], rows["threshold"], strict=True))
            thresholds = scored_thresholds(self.run, name)
            for sample in self.samples:
                item = mask_score_item(self.run, name, sample)
                missing = any((item, threshold) not in scored_pairs for threshold in thresholds)
                if (everything or missing) and has_map(self.run, name, sample):
                    todo[sample.id].append(name)
        return [Work(sample, tuple(todo[sample.id])) for sample in self.samples if todo[sample.id]]

    def load(self, batch: Batch) -> list[dict[str, Tensor | None]]:
        """The maps to score, None where one is damaged, by method; a sample an entry."""
        return [
            {name: read_map(self.run, name, work.sample) for name in work.todo} for work in batch
        ]

    def compute(self, batch: Batch, loaded: list[dict[str, Tensor | None]]) -> Scored:
        scored = Scored()
        for work, maps in zip(batch, loaded, strict=True):
            target = edited_part(work.sample, annotation_casing(self.run))
            assert target is not None
            for name, soft_map in maps.items():
                if soft_map is None:
                    scored.failures.append(Failure(self.name, work.sample.id, name, DAMAGED))
                else:
                    rows = scored.rows.setdefault(name, [])
                    rows += self._rows(name, soft_map, target, work.sample)
        return scored

    def _rows(
        self, name: str, soft_map: Tensor, target: NDArray[np.bool_], sample: Sample
    ) -> list[dict[str, Any]]:
        thresholds = scored_thresholds(self.run, name)
        cutter = self.run.methods[name].cutter
        m, levels = cutter.cut(soft_map, thresholds, target.shape, self.run.cfg.compat)
        scores = segmentation.sweep_scores(m.numpy(), levels.numpy(), target)
        precision = segmentation.average_precision(m.numpy(), target)
        same = {
            "item": mask_score_item(self.run, name, sample),
            "annotated": float(target.mean()),
            "constant": float(m.min() == m.max()),
            "average_precision": precision,
        }
        return [
            {**same, "threshold": threshold}
            | {column: float(values[i]) for column, values in scores.items()}
            for i, threshold in enumerate(thresholds)
        ]

    def store(self, batch: Batch, computed: Scored) -> list[Failure]:
        for name, rows in computed.rows.items():
            mask_score_folder(self.run, name).append_rows(rows)
        return computed.failures

    def finish(self) -> None:
        for name in self.run.methods:
            mask_score_folder(self.run, name).compact(MASK_KEYS)
