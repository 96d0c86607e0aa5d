"""One sample as methods and editors see it: a picture, and what is said about its edit.

Knows tensors and texts; must not know files, tokenizers or models.
"""

from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Literal

from torch import Tensor

Knows = Literal["nothing", "prompts", "word", "instruction", "annotation"]
"""How much of the answer a mask method is given, its leak level: only the picture; both prompts
too; PIE-Bench's blended word too; the instruction too; everything, the annotated mask included.
"""


@dataclass(frozen=True)
class Scene:
    """A picture and the edit that is asked for.

    image: uint8 [H, W, 3] on the CPU, at the model's size; prompts are without brackets;
    source_marked, target_marked: the words that the data set marks as changed (PIE-Bench's
    brackets), empty where it marks none; blended_words: "cat dog", or empty; annotation: the
    annotated mask, bool [h, w] of any size, None where there is none.
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

    @property
    def source_changed(self) -> tuple[str, ...]:
        """The words of the source prompt that the target prompt replaces or leaves out."""
        return self._changed()[0]

    @property
    def target_changed(self) -> tuple[str, ...]:
        """The words of the target prompt that the source prompt does not have."""
        return self._changed()[1]

    def as_known(self, knows: Knows) -> "Scene":
        """What a method of that leak level is shown; everything else is blank."""
        shown = self
        if knows != "annotation":
            shown = replace(shown, annotation=None)
        if knows not in ("annotation", "instruction"):
            shown = replace(shown, instruction="")
        if knows not in ("annotation", "word"):
            shown = replace(shown, blended_words="")
        if knows == "nothing":
            shown = replace(shown, source_prompt="", target_prompt="")
            shown = replace(shown, source_marked=(), target_marked=())
        return shown

    def _changed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        source, target = self.source_prompt.split(), self.target_prompt.split()
        opcodes = SequenceMatcher(None, source, target, autojunk=False).get_opcodes()
        changed = [entry[1:] for entry in opcodes if entry[0] != "equal"]
        return (
            tuple(word for i1, i2, _, _ in changed for word in source[i1:i2]),
            tuple(word for _, _, j1, j2 in changed for word in target[j1:j2]),
        )
