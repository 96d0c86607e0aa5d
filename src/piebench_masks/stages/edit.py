"""Stage 3: every sample painted once under each distinct mask of its methods and thresholds."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from piebench_masks.data.sample import Sample
from piebench_masks.editing.turbo_edit import turbo_edit
from piebench_masks.run import Run, item_name, once
from piebench_masks.runner import Batch, Failure, Work
from piebench_masks.stages.latents import Source, latents_folder, load_sources, posteriors
from piebench_masks.stages.variants import distinct, variants
from piebench_masks.store import Folder

VERSION = 1
NOT_FINITE = (
    "its latents are not finite: the weights hold NaN, or the precision overflowed (use a "
    "model.dtype with more range)"
)


@once
def edit_folder(run: Run) -> Folder:
    parameters = {
        "version": VERSION,
        "editor": run.section("editor"),
        "latents": latents_folder(run).key,
        "dtype": run.cfg.model.dtype,
        "compile": run.cfg.model.compile,
    }
    return run.folder("edit", parameters)


def edit_name(sample: Sample, mask: str) -> str:
    """File of a sample's edit under the mask of that name."""
    return f"{item_name(sample)}/{mask}.png"


class Edit:
    """Edited images; an item is a distinct mask of a sample."""

    name = "edit"
    item = "edit"

    def __init__(self, run: Run, samples: Sequence[Sample]) -> None:
        self.run, self.samples = run, samples

    def prepare(self) -> None:
        _ = self.run.backbone

    def pending(self, *, everything: bool = False) -> list[Work]:
        if self.run.cfg.editor.name == "external":
            return []
        folder = edit_folder(self.run)
        work = []
        with ThreadPoolExecutor() as pool:
            for sample in self.samples:
                todo = distinct(variants(self.run, sample))
                if not everything:
                    names = [edit_name(sample, variant.name) for variant in todo]
                    whole = pool.map(folder.has_image, names)
                    todo = [v for v, there in zip(todo, whole, strict=True) if not there]
                if todo:
                    work.append(Work(sample, tuple(todo)))
        return work

    def load(self, batch: Batch) -> list[Source]:
        return load_sources(self.run, [work.sample for work in batch])

    def compute(self, batch: Batch, loaded: list[Source]) -> list[Tensor | None]:
        """All edits of the batch in the order of its work, uint8 [H,W,3]; None: not finite."""
        backbone, editor = self.run.backbone, self.run.cfg.editor
        samples = [work.sample for work in batch]
        latents = turbo_edit(
            backbone,
            posteriors(self.run, loaded).mean,
            backbone.encode_prompts([sample.source_prompt for sample in samples]),
            backbone.encode_prompts([sample.target_prompt for sample in samples]),
            torch.from_numpy(np.stack([v.mask for work in batch for v in work.todo])),
            torch.tensor([row for row, work in enumerate(batch) for _ in work.todo]),
            steps=editor.steps,
            w=editor.w,
            seed=editor.seed,
        )
        finite = latents.isfinite().flatten(1).all(dim=1)
        pictures = iter(backbone.decode(latents[finite]) if finite.any() else ())
        return [next(pictures) if sound else None for sound in finite.tolist()]

    def store(self, batch: Batch, computed: list[Tensor | None]) -> list[Failure]:
        pictures, failures = {}, []
        asked = [(work.sample, variant) for work in batch for variant in work.todo]
        for (sample, variant), picture in zip(asked, computed, strict=True):
            if picture is None:
                failures.append(Failure(self.name, sample.id, str(variant), NOT_FINITE))
            else:
                pictures[edit_name(sample, variant.name)] = picture.numpy()
        edit_folder(self.run).write_images(pictures)
        return failures

    def finish(self) -> None:
        """Nothing: every edit is a file of its own."""
