"""Behind stage 1: the prompts that models write, captions of pictures and of concepts.

They are written once, stand in the samples, and so enter the names of all that is made from them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from piebench_masks.data.images import load_image
from piebench_masks.data.sample import Sample, item_name
from piebench_masks.data.scene import changed_words
from piebench_masks.run import Run, once
from piebench_masks.stages.latents import image_file
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.store import Folder

VERSION = 1
WRITTEN_KEYS = ["item"]
READS = {"captions": ("image",), "concepts": ("prompts", "blended_word")}
"""The fields of a sample, as the data set has it, that a writer is shown."""
NOTHING = "the model wrote nothing: change its settings"


@once
def written_folder(run: Run, writer: str) -> Folder:
    return run.folder(writer, {"version": VERSION, "writer": run.identity(writer)})


def written_item(writer: str, sample: Sample) -> str:
    plain = replace(sample, caption="", source_captions=(), target_captions=())
    return item_name(plain, READS[writer])


def completed(run: Run, samples: Sequence[Sample]) -> list[Sample]:
    """The data set's samples with all that was written, without those of which something is
    missing; as they are where nothing was asked for.
    """
    texts = {writer: _stored(run, writer) for writer in run.writers}
    complete = []
    for sample in samples:
        parts = {name: stored.get(written_item(name, sample)) for name, stored in texts.items()}
        if None not in parts.values():
            captions = parts.get("captions") or {"source": ""}
            concepts = parts.get("concepts") or {"source": "", "target": ""}
            complete.append(
                replace(
                    sample,
                    caption=captions["source"],
                    source_captions=tuple(concepts["source"].splitlines()),
                    target_captions=tuple(concepts["target"].splitlines()),
                )
            )
    return complete


def _stored(run: Run, writer: str) -> dict[str, dict[str, str]]:
    """Rows by item: texts of the source and of the target, several of them as lines."""
    rows = written_folder(run, writer).rows(WRITTEN_KEYS)
    return {} if rows.empty else rows.set_index("item").to_dict("index")  # type: ignore[return-value]


class Written:
    """An item is what one of ``run.writers`` writes of a sample."""

    item = "text"

    def __init__(self, run: Run, samples: Sequence[Sample], writer: str) -> None:
        self.run, self.samples, self.name = run, samples, writer

    def prepare(self) -> None:
        getattr(self.run.writers[self.name], "load", lambda: None)()

    def pending(self, *, everything: bool = False) -> list[Work]:
        stored = {} if everything else _stored(self.run, self.name)
        missing = [s for s in self.samples if written_item(self.name, s) not in stored]
        return [Work(sample, (self.name,)) for sample in missing]

    def load(self, batch: Batch) -> list[Any]:
        """The pictures [H, W, 3], or the concepts of source and target."""
        if self.name == "captions":
            return [load_image(image_file(self.run, work.sample.image_path)) for work in batch]
        return [concepts_of(work.sample) for work in batch]

    def compute(self, batch: Batch, loaded: list[Any]) -> list[dict[str, str] | None]:
        """By sample the columns of its row, None where nothing was written."""
        writer = self.run.writers[self.name]
        if self.name == "captions":
            captions = writer.captions(loaded)
            return [{"source": caption} if caption else None for caption in captions]
        distinct = list(dict.fromkeys(concept for pair in loaded for concept in pair if concept))
        texts = dict(zip(distinct, writer.captions(distinct), strict=True)) if distinct else {}
        return [
            {
                side: "\n".join(texts[concept]) if concept else ""
                for side, concept in zip(("source", "target"), pair, strict=True)
            }
            if all(texts[concept] for concept in pair if concept)
            else None
            for pair in loaded
        ]

    def store(self, batch: Batch, computed: list[dict[str, str] | None]) -> list[Failure]:
        rows, failures = [], []
        for work, texts in zip(batch, computed, strict=True):
            if texts is None:
                failures.append(Failure(self.name, work.sample.id, self.item, NOTHING))
            else:
                rows.append({"item": written_item(self.name, work.sample), **texts})
        written_folder(self.run, self.name).append_rows(rows)
        return failures

    def finish(self) -> None:
        written_folder(self.run, self.name).compact(WRITTEN_KEYS)


def concepts_of(sample: Sample) -> tuple[str, str]:
    """What is exchanged, and for what: the halves of the blended words, else the words that the
    prompts do not share; empty where there are none.
    """
    words = sample.blended_word.split()
    if words:
        half = (len(words) + 1) // 2
        return " ".join(words[:half]), " ".join(words[half:])
    source, target = changed_words(sample.source_prompt, sample.target_prompt)
    return " ".join(source), " ".join(target)
