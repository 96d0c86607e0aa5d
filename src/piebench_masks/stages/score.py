"""Stage 4: masks against the annotation over the whole sweep, edited images by every metric."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from piebench_masks.data.images import load_image
from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import Sample
from piebench_masks.editing.external import load_edit
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.method import MapMethod
from piebench_masks.metrics import Metric, segmentation
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import Column
from piebench_masks.provenance import identity
from piebench_masks.run import Run, item_name, once
from piebench_masks.settings import EXTERNAL
from piebench_masks.stages.edit import COSTS, edit_costs, edit_folder, edit_name, has_edit
from piebench_masks.stages.latents import image_file
from piebench_masks.stages.masks import map_folder, map_name, read_map
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.stages.variants import Variant, distinct, edit_thresholds, variants
from piebench_masks.store import Folder

MASK_VERSION, EDIT_VERSION = 2, 1
MASK_KEYS = ["item", "threshold"]
EDIT_KEYS = ["item", "mask"]
EDIT_COLUMNS = ["editor", "method", "threshold", "mask_source", "mask_area", "mask"]
NFE = [name for name in COSTS if name.startswith("nfe_")]


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
    """Rows of one batch by what was scored, and what could not be."""

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
            cuts = scored_thresholds(self.run, method)
            for sample in self.samples:
                wanted = {(item_name(sample), cut) for cut in cuts}
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
        cuts = scored_thresholds(self.run, method)
        m, levels = method.binarizer.cut(soft_map, cuts, target.shape, self.run.cfg.compat)
        scores = segmentation.sweep_scores(m.numpy(), levels.numpy(), target)
        precision = segmentation.average_precision(m.numpy(), target)
        return [
            {"item": item_name(sample), "threshold": cut, "average_precision": precision}
            | {column: float(values[i]) for column, values in scores.items()}
            for i, cut in enumerate(cuts)
        ]

    def store(self, batch: Batch, computed: Scored) -> list[Failure]:
        for name, rows in computed.rows.items():
            mask_score_folder(self.run, self.run.methods[name]).append_rows(rows)
        return computed.failures

    def finish(self) -> None:
        for method in self.run.methods.values():
            mask_score_folder(self.run, method).compact(MASK_KEYS)


@once
def edit_score_folder(run: Run, editor: str) -> Folder:
    parameters = {
        "version": EDIT_VERSION,
        # Edits made elsewhere are named by their contents.
        "edits": EXTERNAL if editor == EXTERNAL else edit_folder(run, editor).key,
        "metrics": identity(run.section("metrics")),
    }
    return run.folder("edit_scores", parameters)


def read_columns(run: Run) -> dict[str, Column]:
    """How the editing metrics' columns are shown, as their scorers said when they ran.

    Where that is missing or damaged the scorers are asked again; {} if nothing was scored.
    """
    folders = [edit_score_folder(run, editor) for editor in run.section("editor")]
    folder = next((folder for folder in folders if has_columns(folder)), None)
    if folder is None:
        folder = next((f for f in folders if not f.rows(EDIT_KEYS).empty), None)
        if folder is None:
            return {}
        write_columns(folder, _columns(run))
    lines = folder.path_of("columns.json").read_text().splitlines()
    return {name: Column(**values) for name, values in json.loads(lines[1]).items()}


def has_columns(folder: Folder) -> bool:
    """Whether a folder of edits' scores says how they are shown, and is sound: a checksum's line,
    then the columns' line.
    """
    try:
        checksum, shown = folder.path_of("columns.json").read_bytes().split(b"\n")
    except (OSError, ValueError):
        return False
    return checksum == hashlib.sha256(shown).hexdigest().encode()


def write_columns(folder: Folder, columns: Mapping[str, Column]) -> None:
    shown = json.dumps({name: asdict(column) for name, column in columns.items()})
    checksum = hashlib.sha256(shown.encode()).hexdigest()
    folder.write_bytes("columns.json", f"{checksum}\n{shown}".encode())


def _columns(run: Run) -> dict[str, Column]:
    return {name: column for metric in run.metrics for name, column in metric.columns.items()}


LoadedEdits = tuple[EditCase, list[NDArray[np.uint8] | BenchmarkError]]


class EditScores:
    """Editing metrics of one editor; an item is an edited image."""

    item = "edit"

    def __init__(self, run: Run, samples: Sequence[Sample], editor: str) -> None:
        self.run, self.samples, self.editor = run, samples, editor
        self.name = f"score edits {editor}"

    def prepare(self) -> None:
        _ = self.run.metrics

    def pending(self, *, everything: bool = False) -> list[Work]:
        rows = edit_score_folder(self.run, self.editor).rows(EDIT_KEYS)
        done = set(zip(rows["item"], rows["mask"], strict=True))
        work = []
        for sample in self.samples:
            todo = tuple(
                variant
                for variant in distinct(variants(self.run, sample, self.editor))
                if (everything or (item_name(sample), variant.name) not in done)
                and (variant.file or has_edit(self.run, sample, variant))
            )
            if todo:
                work.append(Work(sample, todo))
        return work

    def load(self, batch: Batch) -> list[LoadedEdits]:
        with ThreadPoolExecutor() as pool:
            return [self._load(work, pool) for work in batch]

    def _load(self, work: Work, pool: ThreadPoolExecutor) -> LoadedEdits:
        case = edit_case(self.run, work.sample)

        def read(variant: Variant) -> NDArray[np.uint8] | BenchmarkError:
            try:
                return read_edit(self.run, work.sample, variant, case.source)
            except BenchmarkError as error:
                return error

        return case, list(pool.map(read, work.todo))

    def compute(self, batch: Batch, loaded: list[LoadedEdits]) -> Scored:
        scored = Scored()
        for work, (case, edits) in zip(batch, loaded, strict=True):
            edited: dict[str, NDArray[np.uint8]] = {}
            for variant, edit in zip(work.todo, edits, strict=True):
                if isinstance(edit, BenchmarkError):
                    name = str(variant)
                    scored.failures.append(Failure(self.name, work.sample.id, name, str(edit)))
                else:
                    edited[variant.name] = edit
            if not edited:
                continue
            scores = _score(self.run.metrics, case, np.stack(list(edited.values())))
            scored.rows.setdefault(self.name, []).extend(
                {"item": item_name(work.sample), "mask": mask}
                | {name: _number(values[i]) for name, values in scores.items()}
                for i, mask in enumerate(edited)
            )
        return scored

    def store(self, batch: Batch, computed: Scored) -> list[Failure]:
        folder = edit_score_folder(self.run, self.editor)
        if not has_columns(folder):
            write_columns(folder, _columns(self.run))
        for rows in computed.rows.values():
            folder.append_rows(rows)
        return computed.failures

    def finish(self) -> None:
        edit_score_folder(self.run, self.editor).compact(EDIT_KEYS)


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

    A damaged file of ours is removed, so that the next run paints it anew: BenchmarkError.
    """
    if variant.file is not None:
        image = load_edit(variant.file, source.shape)
    else:
        folder, name = edit_folder(run, variant.editor), edit_name(sample, variant.name)
        stored = folder.read_image(name)
        if stored is None:
            folder.path_of(name).unlink(missing_ok=True)
            raise BenchmarkError(f"the stored edit {folder.path / name} was damaged: run again")
        image = stored
    if image.shape == source.shape:
        return image
    size = source.shape[1], source.shape[0]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _score(
    metrics: Sequence[Metric], case: EditCase, edited: NDArray[np.uint8]
) -> dict[str, NDArray[np.float64]]:
    return {name: values for metric in metrics for name, values in metric(case, edited).items()}


def _number(value: float) -> float | None:
    """Missing is null in JSON."""
    return None if np.isnan(value) else float(value)


def mask_scores(run: Run, samples: Sequence[Sample]) -> pd.DataFrame:
    """One row for every sample, method and threshold of this configuration that was scored."""
    frames = [pd.DataFrame(columns=[*MASK_KEYS, "method"])]
    for name, method in run.methods.items():
        rows = mask_score_folder(run, method).rows(MASK_KEYS).assign(method=name)
        frames.append(rows[rows["threshold"].isin(scored_thresholds(run, method))])
    scored = [frame for frame in frames if len(frame)]
    return _of_samples(pd.concat(scored or frames, ignore_index=True), samples)


def edit_scores(run: Run, samples: Sequence[Sample]) -> pd.DataFrame:
    """One row for every sample, method and threshold edited under; equal masks share their scores.

    ``mask_source`` is "none" for the unmasked edit, "oracle" where the mask is made from the
    annotation, otherwise "predicted"; ``mask_area`` is the edited share of the latents, NaN where
    it is not known. ``nfe_inverse``, ``nfe_forward``: U-Net evaluations for the edit, NaN likewise.
    """
    frames = [pd.DataFrame(columns=["sample", "edit_type", *EDIT_COLUMNS, *NFE])]
    frames += [_edit_scores(run, samples, editor) for editor in run.section("editor")]
    scored = [frame for frame in frames if len(frame)]
    return pd.concat(scored or frames, ignore_index=True)


def _edit_scores(run: Run, samples: Sequence[Sample], editor: str) -> pd.DataFrame:
    used = [
        {
            "item": item_name(sample),
            "editor": variant.editor,
            "method": variant.method,
            "threshold": variant.threshold,
            "mask_source": variant.mask_source,
            "mask_area": float(variant.mask.mean()) if variant.mask.size else float("nan"),
            "mask": variant.name,
        }
        for sample in samples
        for variant in variants(run, sample, editor)
    ]
    rows = pd.DataFrame(used, columns=["item", *EDIT_COLUMNS])
    if editor == EXTERNAL:
        rows[NFE] = float("nan")
    else:
        rows = rows.merge(edit_costs(run, editor)[[*EDIT_KEYS, *NFE]], on=EDIT_KEYS, how="left")
    scores = edit_score_folder(run, editor).rows(EDIT_KEYS)
    return _of_samples(rows.merge(scores, on=EDIT_KEYS), samples)


def measured_costs(run: Run, samples: Sequence[Sample], edits: pd.DataFrame) -> pd.DataFrame:
    """``COSTS`` of each edit in ``edit_scores`` that was painted here; equal edits have one row."""
    painted = edits[["editor", "sample", "mask"]].drop_duplicates()
    costs = [
        _of_samples(edit_costs(run, name).assign(editor=name), samples) for name in run.editors
    ]
    return painted.merge(pd.concat(costs), on=[*painted]) if costs else painted.iloc[:0]


def _of_samples(rows: pd.DataFrame, samples: Sequence[Sample]) -> pd.DataFrame:
    known = pd.DataFrame(
        [(item_name(s), s.id, s.edit_type) for s in samples],
        columns=["item", "sample", "edit_type"],
    )
    return known.merge(rows, on="item").drop(columns="item")
