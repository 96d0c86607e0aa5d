"""Behind stage 1: what a model says of every source picture, in the place of its source prompt.

A caption depends on the picture's file alone. It enters the names of all that is made from it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from piebench_masks.data.images import load_image
from piebench_masks.data.sample import Sample, item_name
from piebench_masks.run import Run, once
from piebench_masks.stages.latents import image_file
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.store import Folder

VERSION = 1
CAPTION_KEYS = ["item"]
READS = ("image",)


@once
def caption_folder(run: Run) -> Folder:
    return run.folder("captions", {"version": VERSION, "captions": run.identity("captions")})


def caption_item(sample: Sample) -> str:
    return item_name(sample, READS)


def captioned(run: Run, samples: Sequence[Sample]) -> list[Sample]:
    """The samples with their stored captions, without those that have none; as they are where no
    captions were asked for.
    """
    if run.captioner is None:
        return list(samples)
    texts = _stored(run)
    pairs = [(sample, texts.get(caption_item(sample))) for sample in samples]
    return [replace(sample, caption=text) for sample, text in pairs if text]


def _stored(run: Run) -> dict[str, str]:
    rows = caption_folder(run).rows(CAPTION_KEYS)
    return dict(zip(rows["item"], rows["caption"], strict=True)) if len(rows) else {}


class Captions:
    """An item is the caption of a sample's picture."""

    name = "captions"
    item = "caption"

    def __init__(self, run: Run, samples: Sequence[Sample]) -> None:
        self.run, self.samples = run, samples

    def prepare(self) -> None:
        getattr(self.run.captioner, "load", lambda: None)()

    def pending(self, *, everything: bool = False) -> list[Work]:
        stored = {} if everything else _stored(self.run)
        missing = [sample for sample in self.samples if caption_item(sample) not in stored]
        return [Work(sample, (self.item,)) for sample in missing]

    def load(self, batch: Batch) -> list[NDArray[np.uint8]]:
        return [load_image(image_file(self.run, work.sample.image_path)) for work in batch]

    def compute(self, batch: Batch, loaded: list[NDArray[np.uint8]]) -> list[str]:
        captioner: Any = self.run.captioner
        return list(captioner.captions(loaded))

    def store(self, batch: Batch, computed: list[str]) -> list[Failure]:
        rows, failures = [], []
        for work, caption in zip(batch, computed, strict=True):
            if caption:
                rows.append({"item": caption_item(work.sample), "caption": caption})
            else:
                reason = "the model says nothing of its picture: set captions.start"
                failures.append(Failure(self.name, work.sample.id, self.item, reason))
        caption_folder(self.run).append_rows(rows)
        return failures

    def finish(self) -> None:
        caption_folder(self.run).compact(CAPTION_KEYS)
