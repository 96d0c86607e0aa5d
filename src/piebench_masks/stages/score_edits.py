"""Stage 4, edits: every edited image by every metric, each metric under a key of its own."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from piebench_masks.data.images import load_image
from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import Sample, item_name
from piebench_masks.editing.external import load_edit
from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics import all_columns, load, reads_of, scores_of
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import Column, columns_json
from piebench_masks.run import Run, once
from piebench_masks.settings import EXTERNAL, IDENTITY, TARGET
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
def edit_score_folder(run: Run, editor: str, metric: str) -> Folder:
    """The scores of one editor's edits by one metric, and beside them what its columns mean."""
    parameters = {
        "version": EDIT_VERSION,
        # Edits made elsewhere are named by their contents.
        "edits": edit_folder(run, editor).key if editor in run.editors else EXTERNAL,
        "metric": run.identity(f"metrics.{metric}"),
    }
    folder = run.folder("edit_scores", parameters)
    description = columns_json(run.metrics[metric].columns).encode()
    path = folder.path_of("columns.json")
    if not run.cfg.dry_run and not (path.is_file() and path.read_bytes() == description):
        folder.write_bytes("columns.json", description)
    return folder


def score_item(run: Run, sample: Sample, editor: str, metric: str) -> str:
    """A sample's name among the scores of a metric.

    It depends on the fields that editor and metric read, and always on the mask, which sets the
    size at which pictures are scored.
    """
    edit_reads = run.editors[editor].reads if editor in run.editors else ()
    return item_name(sample, {*edit_reads, *reads_of(run.metrics[metric]), "mask"})


@once
def edit_columns(run: Run) -> dict[str, Column]:
    """The columns of all metrics, in the order of the settings."""
    return all_columns(run.metrics)


@dataclass(frozen=True)
class Unscored:
    """An edit, and the metrics that have not scored it. Prints as the edit."""

    edit: Variant
    metrics: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.edit)


class DamagedEditError(BenchmarkError):
    """A stored edit cannot be read any more."""


LoadedEdits = tuple[EditCase, list[NDArray[np.uint8] | BenchmarkError]]


class EditScores:
    """Editing metrics of one editor; an item is an edited image."""

    item = "edit"

    def __init__(self, run: Run, samples: Sequence[Sample], editor: str) -> None:
        self.run, self.samples, self.editor = run, samples, editor
        self.name = f"score edits {editor}"

    def prepare(self) -> None:
        for metric in self.run.metrics.values():
            load(metric)

    def pending(self, *, everything: bool = False) -> list[Work]:
        edit_columns(self.run)  # what is wrong with them ends the run before it starts
        scored_masks = {}
        for metric in self.run.metrics:
            rows = edit_score_folder(self.run, self.editor, metric).rows(EDIT_KEYS)
            scored_masks[metric] = set(zip(rows["item"], rows["mask"], strict=True))
        work, variants = [], Variants(self.run)
        for sample in self.samples:
            items = {name: score_item(self.run, sample, self.editor, name) for name in scored_masks}
            todo = []
            for edit in distinct(variants.of(sample, self.editor)):
                metrics = tuple(
                    name
                    for name, item in items.items()
                    if everything or (item, edit.name) not in scored_masks[name]
                )
                if metrics and (edit.file or has_edit(self.run, sample, edit)):
                    todo.append(Unscored(edit, metrics))
            if todo:
                work.append(Work(sample, tuple(todo)))
        return work

    def load(self, batch: Batch) -> list[LoadedEdits]:
        with ThreadPoolExecutor() as pool:
            return [self._load(work, pool) for work in batch]

    def _load(self, work: Work, pool: ThreadPoolExecutor) -> LoadedEdits:
        case = edit_case(self.run, work.sample)

        def read(unscored: Unscored) -> NDArray[np.uint8] | BenchmarkError:
            try:
                return read_edit(self.run, work.sample, unscored.edit, case.source)
            except BenchmarkError as error:
                return error

        return case, list(pool.map(read, work.todo))

    def compute(self, batch: Batch, loaded: list[LoadedEdits]) -> Scored:
        scored = Scored()
        for work, (case, edits) in zip(batch, loaded, strict=True):
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
            for name, metric in self.run.metrics.items():
                images = {u.edit.name: edit for u, edit in readable if name in u.metrics}
                if not images:
                    continue
                try:
                    scores = scores_of(metric, case, np.stack(list(images.values())))
                except Exception as error:  # one metric's trouble costs the others nothing
                    log.debug("metrics.%s: sample %s", name, sample.id, exc_info=error)
                    for mask in images:
                        reasons[mask].append(f"metrics.{name}: {type(error).__name__}: {error}")
                    continue
                item = score_item(self.run, sample, self.editor, name)
                scored.rows.setdefault(name, []).extend(
                    {"item": item, "mask": mask}
                    | {column: _number(values[i]) for column, values in scores.items()}
                    for i, mask in enumerate(images)
                )
            scored.failures += [
                Failure(self.name, sample.id, str(unscored), "; ".join(texts))
                for unscored in work.todo
                if (texts := reasons[unscored.edit.name])
            ]
        return scored

    def store(self, batch: Batch, computed: Scored) -> list[Failure]:
        """A damaged edit is removed: its file's stamp may still be the one that was written."""
        for sample, edit in computed.damaged:
            name = edit_name(self.run, edit.editor, sample, edit.name)
            edit_folder(self.run, edit.editor).remove(name)
        for metric, rows in computed.rows.items():
            edit_score_folder(self.run, self.editor, metric).append_rows(rows)
        return computed.failures

    def finish(self) -> None:
        for metric in self.run.metrics:
            edit_score_folder(self.run, self.editor, metric).compact(EDIT_KEYS)


def edit_case(run: Run, sample: Sample) -> EditCase:
    """A sample's images at the size of its annotated mask (of the source image without one)."""
    size = (sample.mask["size"][0], sample.mask["size"][1]) if sample.mask else None
    target = sample.target_image_path
    return EditCase(
        source=load_image(image_file(run, sample.image_path), size),
        target=None if target is None else load_image(image_file(run, target), size),
        mask=None if sample.mask is None else from_coco(sample.mask),
        source_prompt=sample.source_prompt,
        target_prompt=sample.target_prompt,
    )


def read_edit(
    run: Run, sample: Sample, variant: Variant, source: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """A stored edit, brought to the size of ``source`` (bicubic) where the model's is another.

    BenchmarkError for one that is damaged; the edit stage of the next run paints it anew.
    """
    if variant.editor in (IDENTITY, TARGET):
        assert variant.file is not None
        return load_image(variant.file, (source.shape[0], source.shape[1]))
    if variant.file is not None:
        image = load_edit(variant.file, source.shape)
    else:
        folder, name = (
            edit_folder(run, variant.editor),
            edit_name(run, variant.editor, sample, variant.name),
        )
        stored = folder.read_image(name)
        if stored is None:
            raise DamagedEditError(
                f"the stored edit {folder.path / name} is damaged: run again, it will be painted "
                "anew"
            )
        image = stored
    if image.shape == source.shape:
        return image
    size = source.shape[1], source.shape[0]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _number(value: float) -> float | None:
    """Missing is null in JSON."""
    return None if np.isnan(value) else float(value)
