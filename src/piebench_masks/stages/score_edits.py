"""Stage 4, edits: every edited image by every metric, each metric under a key of its own."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from piebench_masks.data.images import load_image
from piebench_masks.data.sample import Sample, item_name
from piebench_masks.editing.external import load_edit
from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics import Metric, all_columns, load, reads_of, scores_of
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import Column, columns_json
from piebench_masks.protocol import Casing
from piebench_masks.run import Run, Scorer, once
from piebench_masks.settings import EXTERNAL, IDENTITY, TARGET
from piebench_masks.stages.cases import edit_case, mask_resized, resized
from piebench_masks.stages.edit import edit_folder, edit_name, has_edit
from piebench_masks.stages.latents import image_file
from piebench_masks.stages.score_masks import Scored
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.stages.variants import Variant, Variants, distinct
from piebench_masks.store import Folder

log = logging.getLogger(__name__)
EDIT_VERSION = 2
EDIT_KEYS = ["item", "mask"]


@once
def edit_score_folder(run: Run, editor: str, scorer: str) -> Folder:
    """The scores of one editor's edits by one of ``run.scorers``, and beside them what its columns
    mean.
    """
    parameters = {
        "version": EDIT_VERSION,
        # Edits made elsewhere are named by their contents.
        "edits": edit_folder(run, editor).key if editor in run.editors else EXTERNAL,
        "metric": run.identity(f"metrics.{scorer}"),
        **run.scorers[scorer].casing.unusual,
    }
    folder = run.folder("edit_scores", parameters)
    description = columns_json(run.scorers[scorer].metric.columns).encode()
    path = folder.path_of("columns.json")
    if not run.cfg.dry_run and not (path.is_file() and path.read_bytes() == description):
        folder.write_bytes("columns.json", description)
    return folder


def score_item(run: Run, sample: Sample, editor: str, scorer: str) -> str:
    """A sample's name among the scores of one of ``run.scorers``.

    It depends on the fields that editor and metric read, and always on the mask, which sets the
    size at which pictures are scored.
    """
    edit_reads = run.editors[editor].reads if editor in run.editors else ()
    metric, _, casing = run.scorers[scorer]
    return item_name(sample, {*edit_reads, *reads_of(metric), *casing.fields})


@once
def protocol_columns(run: Run, protocol: str) -> dict[str, Column]:
    """The columns of all metrics under a protocol, in the order of the settings."""
    return all_columns(
        {name: run.scorers[label].metric for name, label in run.scorers_under(protocol).items()}
    )


@dataclass(frozen=True)
class Unscored:
    """An edit, and those of ``run.scorers`` that have not scored it. Prints as the edit."""

    edit: Variant
    scorers: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.edit)


class DamagedEditError(BenchmarkError):
    """A stored edit cannot be read any more."""


Cases = dict[Casing, EditCase]
LoadedEdits = tuple[Cases, list[NDArray[np.uint8] | BenchmarkError]]


class EditScores:
    """Editing metrics of one editor; an item is an edited image."""

    item = "edit"

    def __init__(self, run: Run, samples: Sequence[Sample], editor: str) -> None:
        self.run, self.samples, self.editor = run, samples, editor
        self.name = f"score edits {editor}"

    def prepare(self) -> None:
        for scorer in self.run.scorers.values():
            load(scorer.metric)

    def pending(self, *, everything: bool = False) -> list[Work]:
        for name in self.run.protocols:  # what is wrong with them ends the run before it starts
            protocol_columns(self.run, name)
        scored_masks = {}
        for scorer in self.run.scorers:
            rows = edit_score_folder(self.run, self.editor, scorer).rows(EDIT_KEYS)
            scored_masks[scorer] = set(zip(rows["item"], rows["mask"], strict=True))
        work, variants = [], Variants(self.run)
        for sample in self.samples:
            items = {name: score_item(self.run, sample, self.editor, name) for name in scored_masks}
            todo = []
            for edit in distinct(variants.of(sample, self.editor)):
                scorers = tuple(
                    name
                    for name, item in items.items()
                    if everything or (item, edit.name) not in scored_masks[name]
                )
                if scorers and (edit.file or has_edit(self.run, sample, edit)):
                    todo.append(Unscored(edit, scorers))
            if todo:
                work.append(Work(sample, tuple(todo)))
        return work

    def load(self, batch: Batch) -> list[LoadedEdits]:
        with ThreadPoolExecutor() as pool:
            return [self._load(work, pool) for work in batch]

    def _load(self, work: Work, pool: ThreadPoolExecutor) -> LoadedEdits:
        casings = {self.run.scorers[s].casing for unscored in work.todo for s in unscored.scorers}
        source = load_image(image_file(self.run, work.sample.image_path))
        cases = {casing: edit_case(self.run, work.sample, casing, source) for casing in casings}

        def read(unscored: Unscored) -> NDArray[np.uint8] | BenchmarkError:
            try:
                return read_edit(self.run, work.sample, unscored.edit, source.shape)
            except BenchmarkError as error:
                return error

        return cases, list(pool.map(read, work.todo))

    def compute(self, batch: Batch, loaded: list[LoadedEdits]) -> Scored:
        scored = Scored()
        for work, (cases, edits) in zip(batch, loaded, strict=True):
            sample = work.sample
            reasons: dict[str, list[str]] = {unscored.edit.name: [] for unscored in work.todo}
            readable = []
            for unscored, edit in zip(work.todo, edits, strict=True):
                if isinstance(edit, BenchmarkError):
                    reasons[unscored.edit.name].append(str(edit))
                    if isinstance(edit, DamagedEditError):
                        scored.damaged.append((sample, unscored.edit))
                else:
                    readable.append((unscored, edit))
            for name, scorer in self.run.scorers.items():
                asked = [(u.edit, edit) for u, edit in readable if name in u.scorers]
                if not asked:
                    continue
                try:
                    rows = self._rows(scorer, cases[scorer.casing], asked)
                except Exception as error:  # one metric's trouble costs the others nothing
                    log.debug("metrics.%s: sample %s", name, sample.id, exc_info=error)
                    for edit, _ in asked:
                        reasons[edit.name].append(
                            f"metrics.{name}: {type(error).__name__}: {error}"
                        )
                    continue
                item = score_item(self.run, sample, self.editor, name)
                scored.rows.setdefault(name, []).extend({"item": item} | row for row in rows)
            scored.failures += [
                Failure(self.name, sample.id, str(unscored), "; ".join(texts))
                for unscored in work.todo
                if (texts := reasons[unscored.edit.name])
            ]
        return scored

    def _rows(
        self, scorer: Scorer, case: EditCase, edits: Sequence[tuple[Variant, NDArray[np.uint8]]]
    ) -> list[dict[str, Any]]:
        """Rows without their item, of edits of one sample at any size."""
        size = case.source.shape[0], case.source.shape[1]
        images = np.stack([resized(image, size) for _, image in edits])
        names = [edit.name for edit, _ in edits]
        if scorer.casing.part != "editor":
            return _rows(scorer.metric, case, names, images)
        rows = []
        for i, (edit, _) in enumerate(edits):  # each has a part of its own
            mask = edit.mask
            part = None if mask is None else mask_resized(mask.array(self.run.sizes[1]), size)
            own = replace(case, mask=part)
            rows += _rows(scorer.metric, own, names[i : i + 1], images[i : i + 1])
        return rows

    def store(self, batch: Batch, computed: Scored) -> list[Failure]:
        """A damaged edit is removed: its file's stamp may still be the one that was written."""
        for sample, edit in computed.damaged:
            name = edit_name(self.run, edit.editor, sample, edit.name)
            edit_folder(self.run, edit.editor).remove(name)
        for scorer, rows in computed.rows.items():
            edit_score_folder(self.run, self.editor, scorer).append_rows(rows)
        return computed.failures

    def finish(self) -> None:
        for scorer in self.run.scorers:
            edit_score_folder(self.run, self.editor, scorer).compact(EDIT_KEYS)


def _rows(
    metric: Metric, case: EditCase, masks: Sequence[str], images: NDArray[np.uint8]
) -> list[dict[str, Any]]:
    scores = scores_of(metric, case, images)
    return [
        {"mask": mask} | {column: _number(values[i]) for column, values in scores.items()}
        for i, mask in enumerate(masks)
    ]


def read_edit(
    run: Run, sample: Sample, variant: Variant, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """A stored edit [H,W,3] at its own size; shape: of the source picture.

    BenchmarkError for one that is damaged; the edit stage of the next run paints it anew.
    """
    if variant.editor in (IDENTITY, TARGET):
        assert variant.file is not None
        return load_image(variant.file)
    if variant.file is not None:
        return load_edit(variant.file, shape)
    folder, name = (
        edit_folder(run, variant.editor),
        edit_name(run, variant.editor, sample, variant.name),
    )
    stored = folder.read_image(name)
    if stored is None:
        raise DamagedEditError(
            f"the stored edit {folder.path / name} is damaged: run again, it will be painted anew"
        )
    return stored


def _number(value: float | str) -> float | str | None:
    """Missing is null in JSON; texts are as they are."""
    if isinstance(value, str):
        return value
    return None if np.isnan(value) else float(value)
