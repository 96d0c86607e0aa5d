"""A vision-language model as a judge of edits, through transformers. Chosen only on purpose.

What it is asked stands here, with a version. Its answers are kept as text beside its verdicts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from piebench_masks.identity import NO_OUTPUT
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import Column
from piebench_masks.weights import loading, quiet, sought, weights_folder

QUESTION = (
    "The first picture was edited, the second is the result. The first is described by "
    '"{source}". The edit should turn it into "{target}" and leave everything else as it was. '
    "Rate from 0 (not at all) to 10 (perfectly) how well the asked change was made, and how well "
    "everything else was kept. Answer with two numbers and nothing else, as in: change 4, kept 9."
)
"""Version 1 of what the judge is asked."""
VERDICT = re.compile(r"change\D{0,3}(\d+(?:\.\d+)?)\D+kept\D{0,3}(\d+(?:\.\d+)?)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Ratings from 0 to 10 of what changed and what was kept, and how far repeats agree.

    model: a hub name or folder of a transformers image-text model; revision, cache_dir: of the hub.
    repeats: how often each edit is judged, the first time greedily, then by sampling with seeds of
    its own. An answer that is no verdict counts as missing. Loading raises WeightsError.
    """

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts", "mask")
    texts: ClassVar[tuple[str, ...]] = ("judge_answers",)
    model: str = field(default="Qwen/Qwen2.5-VL-3B-Instruct", metadata=NO_OUTPUT)
    revision: str | None = field(default=None, metadata=NO_OUTPUT)
    cache_dir: str | None = field(default=None, metadata=NO_OUTPUT)
    repeats: int = 3
    max_new_tokens: int = 32
    device: str | torch.device = field(default="cpu", metadata=NO_OUTPUT)

    @property
    def columns(self) -> Mapping[str, Column]:
        by = "as a vision-language model rates it from 0 to 10; mean of its repeats."
        return {
            "judge_change": Column("Judge: change", "up", meaning=f"The asked change, {by}"),
            "judge_kept": Column("Judge: kept", "up", meaning=f"All that should stay, {by}"),
            "judge_agreement": Column(
                "Judge: agreement",
                "up",
                100,
                digits=1,
                headline=False,
                meaning="Share of repeats whose verdict is within one point of the first.",
            ),
        }

    def identity(self) -> Any:
        """Contents of a folder's files, a hub model's name and commit."""
        return self._folder[1]

    def load(self) -> None:
        """Load the model: WeightsError."""
        _ = self._networks

    @torch.inference_mode()
    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Judge ``edited`` uint8 [V, H, W, 3], one by one; ``judge_answers`` are texts."""
        answers = [self.answers(case, image) for image in edited]
        verdicts = np.array([[verdict(text) for text in texts] for texts in answers])
        given = np.isfinite(verdicts).all(axis=-1)
        counts = given.sum(axis=1)[:, None]
        sums = np.where(given[..., None], verdicts, 0).sum(axis=1)
        mean = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        near = (np.abs(verdicts - verdicts[:, :1]) <= 1).all(axis=-1)[:, 1:]
        agreement = near.mean(axis=1) if self.repeats > 1 else np.full(len(edited), np.nan)
        return {
            "judge_change": mean[:, 0],
            "judge_kept": mean[:, 1],
            "judge_agreement": np.where(given[:, 0], agreement, np.nan),
            "judge_answers": np.array([" | ".join(texts) for texts in answers], dtype=object),
        }

    def answers(self, case: EditCase, edited: np.ndarray) -> list[str]:
        """What the model says of one edit, ``repeats`` times."""
        network, processor = self._networks
        question = QUESTION.format(source=case.source_prompt, target=case.target_prompt)
        content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": question}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        pictures = [Image.fromarray(case.source), Image.fromarray(edited)]
        inputs = processor(images=pictures, text=prompt, return_tensors="pt").to(self.device)
        length = inputs["input_ids"].shape[1]
        found = []
        for repeat in range(self.repeats):
            with torch.random.fork_rng():
                torch.manual_seed(repeat)
                tokens = network.generate(
                    **inputs, do_sample=repeat > 0, max_new_tokens=self.max_new_tokens
                )
            text = processor.batch_decode(tokens[:, length:], skip_special_tokens=True)[0]
            found.append(" ".join(text.split()))
        return found

    @cached_property
    def _folder(self) -> tuple[Any, str]:
        with self._loading():
            return weights_folder(self.model, revision=self.revision, cache_dir=self.cache_dir)

    @cached_property
    def _networks(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        folder = self._folder[0]
        with self._loading(), quiet(logging):
            network = AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, dtype="auto", use_safetensors=True
            )
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        return network.eval().requires_grad_(False).to(self.device), processor

    def _loading(self) -> Any:
        return loading(
            "The judge",
            where=sought(self.model, self.revision, self.cache_dir),
            remedy="check the network and the name, or set metrics.judge.model to a local folder",
        )


def verdict(answer: str) -> tuple[float, float]:
    """The two ratings in an answer, NaN where it has none from 0 to 10."""
    found = VERDICT.search(answer)
    ratings = (float(found[1]), float(found[2])) if found else (np.nan, np.nan)
    return ratings if all(0 <= rating <= 10 for rating in ratings) else (np.nan, np.nan)
