"""Stage 3: every sample painted by each editor once under each distinct mask of its methods and
thresholds, and what that cost.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import nan
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from piebench_masks.data.sample import Sample, item_name
from piebench_masks.editing.editor import Cost, Fit, Sources, paint
from piebench_masks.run import Run, once
from piebench_masks.stages.fits import fit_folder, fit_item, fit_seconds, read_fit
from piebench_masks.stages.latents import Source, latents_folder, load_sources, posteriors
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.stages.variants import Variant, Variants, distinct
from piebench_masks.store import Folder

VERSION = 3
KEYS = ["item", "mask"]
COSTS = ["nfe_inverse", "nfe_forward", "seconds_inverse", "seconds_forward", "backward"]
"""U-Net evaluations and wall time of one edit: its inversion, and its sampling under a mask; and
how many evaluations of its inversion had a gradient."""
NOT_FINITE = (
    "its latents are not finite, or its picture is black: the weights hold NaN, or the precision "
    "overflowed (use a dtype with more range)"
)


@once
def edit_folder(run: Run, editor: str) -> Folder:
    """The edits of an editor, keyed by its settings and not by its name."""
    parameters: dict[str, Any] = {
        "version": VERSION,
        "editor": run.identity(f"editor.{editor}"),
        "sizes": list(run.sizes),
    }
    if run.editors[editor].needs is not None:
        parameters |= {
            "latents": latents_folder(run).key,
            "dtype": run.cfg.model.dtype,
            "map_size": run.cfg.model.map_size,  # of the attention that some editors read
            "compile": run.cfg.model.compile,
        }
    if editor in run.fittings:
        parameters["fits"] = fit_folder(run, editor).key
    return run.folder("edit", parameters)


def edit_item(run: Run, editor: str, sample: Sample) -> str:
    """A sample's name among an editor's edits: by what the editor reads of it."""
    return item_name(sample, run.editors[editor].reads)


def edit_name(run: Run, editor: str, sample: Sample, mask: str) -> str:
    """File of a sample's edit under the mask of that name."""
    return f"{edit_item(run, editor, sample)}/{mask}.png"


def has_edit(run: Run, sample: Sample, variant: Variant) -> bool:
    """Whether the edit is there, painted by an editor or, as a file, by others."""
    if variant.file is not None:
        return variant.file.is_file()
    name = edit_name(run, variant.editor, sample, variant.name)
    return edit_folder(run, variant.editor).has(name)


def edit_costs(run: Run, editor: str) -> pd.DataFrame:
    """``COSTS`` of every edit that was ever painted with the editor's settings, by ``KEYS``."""
    rows = edit_folder(run, editor).rows(KEYS).reindex(columns=[*KEYS, *COSTS])
    return rows.astype(dict.fromkeys(COSTS, float))


Painted = tuple[NDArray[np.uint8] | None, dict[str, float]]
"""An edit, uint8 [H,W,3], None where it is not finite, and its ``COSTS``."""


class Edit:
    """Edited images of one editor; an item is a distinct mask of a sample."""

    item = "edit"

    def __init__(self, run: Run, samples: Sequence[Sample], editor: str) -> None:
        self.run, self.samples, self.editor = run, samples, editor
        self.name = f"edit {editor}"

    def prepare(self) -> None:
        editor = self.run.editors[self.editor]
        if editor.needs is not None:
            _ = self.run.backbone
        getattr(editor, "load", lambda: None)()

    def pending(self, *, everything: bool = False) -> list[Work]:
        folder, variants = edit_folder(self.run, self.editor), Variants(self.run)
        stamps = folder.stamps(KEYS)

        def is_whole(item: str, variant: Variant) -> bool:
            stamp = stamps.get((item, variant.name))
            if stamp is None:
                return False
            return folder.is_whole(f"{item}/{variant.name}.png", *stamp)

        work = []
        with ThreadPoolExecutor() as pool:
            for sample in self.samples:
                todo = distinct(variants.of(sample, self.editor))
                if not everything:
                    item = edit_item(self.run, self.editor, sample)
                    presence = list(pool.map(is_whole, [item] * len(todo), todo))
                    todo = [v for v, present in zip(todo, presence, strict=True) if not present]
                if todo:
                    work.append(Work(sample, tuple(todo)))
        return work

    def load(self, batch: Batch) -> list[Source]:
        encoded = self.run.editors[self.editor].needs is not None
        return load_sources(self.run, [work.sample for work in batch], encoded=encoded)

    def compute(self, batch: Batch, loaded: list[Source]) -> list[Painted]:
        """All edits of the batch in the order of its work."""
        run, editor = self.run, self.run.editors[self.editor]
        backbone = run.backbone if editor.needs is not None else None
        sources = Sources(
            [source.scene for source in loaded],
            None if backbone is None else posteriors(run, loaded),
            self._fits(batch),
        )
        size = run.sizes[1]
        masks = np.stack([v.mask.array(size) for work in batch for v in work.todo])
        owner = torch.tensor([row for row, work in enumerate(batch) for _ in work.todo])
        edited, costs = paint(backbone, editor, sources, torch.from_numpy(masks), owner)
        pictures, costs = edited.images.numpy(), self._with_fits(batch, costs)
        return [
            (picture if finite else None, dict(zip(COSTS, cost, strict=True)))
            for picture, finite, cost in zip(pictures, edited.finite.tolist(), costs, strict=True)
        ]

    def _fits(self, batch: Batch) -> Callable[[int], Fit] | None:
        if self.editor not in self.run.fittings:
            return None
        return lambda row: read_fit(self.run, self.editor, batch[row].sample)

    def _with_fits(self, batch: Batch, costs: Sequence[Cost]) -> list[Cost]:
        """The costs of the batch's edits with the time that their fits took."""
        if self.editor not in self.run.fittings:
            return [*costs]
        seconds = fit_seconds(self.run, self.editor)
        items = [fit_item(self.run, self.editor, w.sample) for w in batch for _ in w.todo]
        return [
            cost._replace(seconds_inverse=cost.seconds_inverse + seconds.get(item, nan))
            for item, cost in zip(items, costs, strict=True)
        ]

    def store(self, batch: Batch, computed: list[Painted]) -> list[Failure]:
        """Pictures first, so that no cost is stored without its picture."""
        pictures, costs, failures = {}, [], []
        edits = [(work.sample, variant) for work in batch for variant in work.todo]
        for (sample, variant), (picture, cost) in zip(edits, computed, strict=True):
            if picture is None:
                failures.append(Failure(self.name, sample.id, str(variant), NOT_FINITE))
                continue
            item = edit_item(self.run, self.editor, sample)
            pictures[f"{item}/{variant.name}.png"] = picture
            costs.append({"item": item, "mask": variant.name} | cost)
        folder = edit_folder(self.run, self.editor)
        stamps = folder.write_images(pictures)
        folder.append_rows(
            [row | stamp._asdict() for row, stamp in zip(costs, stamps.values(), strict=True)]
        )
        return failures

    def finish(self) -> None:
        edit_folder(self.run, self.editor).compact(KEYS)
