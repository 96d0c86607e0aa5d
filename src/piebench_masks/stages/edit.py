"""Stage 3: every sample painted by each editor once under each distinct mask of its methods and
thresholds, and what that cost.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.data.sample import Sample
from piebench_masks.data.scene import Scene
from piebench_masks.editing.editor import Sources, paint
from piebench_masks.provenance import identity
from piebench_masks.run import Run, item_name, once
from piebench_masks.stages.latents import (
    Source,
    latents_folder,
    load_sources,
    model_image,
    posteriors,
)
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.stages.variants import Variant, distinct, variants
from piebench_masks.store import Folder

VERSION = 2
KEYS = ["item", "mask"]
COSTS = ["nfe_inverse", "nfe_forward", "seconds_inverse", "seconds_forward"]
"""Of one edit: U-Net evaluations and wall time, without and with its mask."""
NOT_FINITE = (
    "its latents are not finite: the weights hold NaN, or the precision overflowed (use a "
    "model.dtype with more range)"
)


@once
def edit_folder(run: Run, editor: str) -> Folder:
    """The edits of the editor that is called so, keyed by its own settings and not by its name."""
    parameters = {
        "version": VERSION,
        "editor": identity(run.section("editor")[editor]),
        # Of an editor's own model, which an id or a folder's name does not tell.
        "weights": getattr(run.editors[editor], "identity", lambda: None)(),
        "latents": latents_folder(run).key,
        "dtype": run.cfg.model.dtype,
        "map_size": run.cfg.model.map_size,  # of the attention that some editors read
        "compile": run.cfg.model.compile,
    }
    return run.folder("edit", parameters)


def edit_name(sample: Sample, mask: str) -> str:
    """File of a sample's edit under the mask of that name."""
    return f"{item_name(sample)}/{mask}.png"


def has_edit(run: Run, sample: Sample, variant: Variant) -> bool:
    """Whether the edit is there, painted by an editor or, as a file, by others."""
    if variant.file is not None:
        return variant.file.is_file()
    return edit_folder(run, variant.editor).has(edit_name(sample, variant.name))


def edit_costs(run: Run, editor: str) -> pd.DataFrame:
    """``COSTS`` of every edit that was ever painted with the editor's settings, by ``KEYS``."""
    rows = edit_folder(run, editor).rows(KEYS).reindex(columns=[*KEYS, *COSTS])
    return rows.astype(dict.fromkeys(COSTS, float))


Cost = dict[str, float]
Painted = tuple[Tensor | None, Cost]
"""An edit, uint8 [H,W,3], None where it is not finite, and its ``COSTS``."""


class Edit:
    """Edited images of one editor; an item is a distinct mask of a sample."""

    item = "edit"

    def __init__(self, run: Run, samples: Sequence[Sample], editor: str) -> None:
        self.run, self.samples, self.editor = run, samples, editor
        self.name = f"edit {editor}"

    def prepare(self) -> None:
        _ = self.run.backbone

    def pending(self, *, everything: bool = False) -> list[Work]:
        folder = edit_folder(self.run, self.editor)
        rows = folder.rows(KEYS)
        known = set(zip(rows["item"], rows["mask"], strict=True))
        work = []
        with ThreadPoolExecutor() as pool:
            for sample in self.samples:
                todo = distinct(variants(self.run, sample, self.editor))
                if not everything:
                    names = [edit_name(sample, variant.name) for variant in todo]
                    whole = pool.map(folder.has_image, names)
                    todo = [
                        variant
                        for variant, there in zip(todo, whole, strict=True)
                        if not there or (item_name(sample), variant.name) not in known
                    ]
                if todo:
                    work.append(Work(sample, tuple(todo)))
        return work

    def load(self, batch: Batch) -> tuple[list[Source], NDArray[np.uint8]]:
        """The samples' posteriors, where they are stored, and pictures [B,H,W,3]."""
        samples = [work.sample for work in batch]
        pictures = [model_image(self.run, sample) for sample in samples]
        return load_sources(self.run, samples), np.stack(pictures)

    def compute(
        self, batch: Batch, loaded: tuple[list[Source], NDArray[np.uint8]]
    ) -> list[Painted]:
        """All edits of the batch in the order of its work."""
        run, editor = self.run, self.run.editors[self.editor]
        backbone, samples = run.backbone, [work.sample for work in batch]
        scenes = [
            Scene(
                sample.id,
                torch.from_numpy(image),
                sample.source_prompt,
                sample.target_prompt,
                instruction=sample.instruction,
                blended_words=sample.blended_word,
            )
            for sample, image in zip(samples, loaded[1], strict=True)
        ]
        sources = Sources(scenes, posteriors(run, loaded[0]))
        masks = torch.from_numpy(np.stack([v.mask for work in batch for v in work.todo]))
        owner = torch.tensor([row for row, work in enumerate(batch) for _ in work.todo])
        edited, costs = paint(backbone, editor, sources, masks, owner)
        painted = zip(edited.images, edited.finite.tolist(), costs, strict=True)
        return [
            (picture if finite else None, dict(zip(COSTS, cost, strict=True)))
            for picture, finite, cost in painted
        ]

    def store(self, batch: Batch, computed: list[Painted]) -> list[Failure]:
        """Costs first: an edit without them would be painted again."""
        pictures, costs, failures = {}, [], []
        asked = [(work.sample, variant) for work in batch for variant in work.todo]
        for (sample, variant), (picture, cost) in zip(asked, computed, strict=True):
            if picture is None:
                failures.append(Failure(self.name, sample.id, str(variant), NOT_FINITE))
            else:
                pictures[edit_name(sample, variant.name)] = picture.numpy()
                costs.append({"item": item_name(sample), "mask": variant.name} | cost)
        folder = edit_folder(self.run, self.editor)
        folder.append_rows(costs)
        folder.write_images(pictures)
        return failures

    def finish(self) -> None:
        edit_folder(self.run, self.editor).compact(KEYS)
