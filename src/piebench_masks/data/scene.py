"""One sample as methods and editors see it: a picture, and what is said about its edit.

Knows tensors and texts; must not know files, tokenizers or models.
"""

from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import Sample
from piebench_masks.diffusion.backbone import Prompt
from piebench_masks.errors import BenchmarkError

Knows = Literal[
    "nothing", "prompts", "word", "instruction", "type", "scores", "annotation", "unknown"
]
"""The leak level of a mask method, how much of the answer it is given: only the picture; both
prompts too; PIE-Bench's blended word too; the instruction too; both prompts, and CLIP's scores of
edits under masks of its own, which tables may have too; everything, with the annotated mask.
Of what was made elsewhere it may also be ``type``, the edit type too, or ``unknown``.
"""


@dataclass(frozen=True)
class Scene:
    """A picture and the edit that is asked for.

    image: uint8 [H, W, 3] on the CPU, at the model's size; prompts are without brackets;
    source_marked, target_marked: the words that the data set marks as changed (PIE-Bench's
    brackets), empty where it marks none; blended_words: "cat dog", or empty; annotation: the
    annotated mask, bool [h, w] of any size, None where there is none; source_captions,
    target_captions: texts about what is to be exchanged and for what, which some methods take in
    the place of prompts.
    """

    id: str
    image: Tensor
    source_prompt: str
    target_prompt: str
    source_marked: tuple[str, ...] = ()
    target_marked: tuple[str, ...] = ()
    instruction: str = ""
    blended_words: str = ""
    annotation: Tensor | None = None
    source_captions: tuple[str, ...] = ()
    target_captions: tuple[str, ...] = ()

    @property
    def source_concept(self) -> Prompt:
        """The captions of what is to be exchanged; the source prompt where there are none."""
        return self.source_captions or self.source_prompt

    @property
    def target_concept(self) -> Prompt:
        """The captions of what it is exchanged for; the target prompt where there are none."""
        return self.target_captions or self.target_prompt

    @property
    def source_changed(self) -> tuple[str, ...]:
        """The words of the source prompt that the target prompt replaces or leaves out."""
        return self._changed()[0]

    @property
    def target_changed(self) -> tuple[str, ...]:
        """The words of the target prompt that the source prompt does not have."""
        return self._changed()[1]

    @property
    def blended_source(self) -> str:
        """The half of the blended words that names the source; empty where there are none.

        Where words are only inserted, the source shows nothing of the edit. Raises BenchmarkError
        where it does and the sample has no blended words.
        """
        words = self.blended_words.split()
        if not words and self.source_changed:
            raise BenchmarkError(
                f"sample {self.id} has no blended_word, and its prompts differ in more than "
                "insertions: choose a method that looks for the changed words"
            )
        return " ".join(words[: (len(words) + 1) // 2])

    def as_known(self, knows: Knows) -> "Scene":
        """What a method of that leak level is shown; everything else is blank."""
        everything = "annotation", "unknown"
        scene = self
        if knows not in everything:
            scene = replace(scene, annotation=None)
        if knows not in (*everything, "instruction"):
            scene = replace(scene, instruction="")
        if knows not in (*everything, "word", "type"):
            scene = replace(scene, blended_words="")
        if knows == "nothing":
            scene = replace(scene, source_prompt="", target_prompt="")
            scene = replace(scene, source_marked=(), target_marked=())
            scene = replace(scene, source_captions=(), target_captions=())
        return scene

    def _changed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return changed_words(self.source_prompt, self.target_prompt)


def changed_words(source: str, target: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of two texts that the other one does not have at that place."""
    words, others = source.split(), target.split()
    opcodes = SequenceMatcher(None, words, others, autojunk=False).get_opcodes()
    changed = [entry[1:] for entry in opcodes if entry[0] != "equal"]
    return (
        tuple(word for i1, i2, _, _ in changed for word in words[i1:i2]),
        tuple(word for _, _, j1, j2 in changed for word in others[j1:j2]),
    )


def scene_of(sample: Sample, image: NDArray[np.uint8] | Tensor) -> Scene:
    """The scene of a sample and its picture, uint8 [H, W, 3] at the model's size.

    A caption stands in the place of the source prompt. Nothing is marked in it.
    """
    pixels = image if isinstance(image, Tensor) else torch.from_numpy(image)
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(f"a picture is uint8 [H, W, 3], not {pixels.dtype} {[*pixels.shape]}")
    return Scene(
        id=sample.id,
        image=pixels.cpu(),
        source_prompt=sample.caption or sample.source_prompt,
        target_prompt=sample.target_prompt,
        source_marked=() if sample.caption else sample.source_marked,
        target_marked=sample.target_marked,
        instruction=sample.instruction,
        blended_words=sample.blended_word,
        annotation=None if sample.mask is None else torch.from_numpy(from_coco(sample.mask)),
        source_captions=sample.source_captions,
        target_captions=sample.target_captions,
    )
