"""`target_words`, `blended_word`: where the source picture attends to words that are not in its
prompt (OVAM, Marcos-Manchon et al., arXiv 2403.14291).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from piebench_masks.data.scene import Knows
from piebench_masks.diffusion.prompt_diff import changed_columns
from piebench_masks.masks.attention import mean_over_words, word_attention
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class TargetWords(MapMethod):
    """The changed words of the target prompt, looked for with the queries of the source's row.

    Attention is a softmax over the target prompt's tokens, mean over the words, heads and layers of
    the map grid. Without inserted or replaced words the map is 0. draws: None for ``num_repeat``.
    """

    draws: int | None = None

    @property
    def needs(self) -> Needs:
        return Needs(
            conditions=("source",), cross_attention=("map",), texts=("target",), draws=self.draws
        )

    def __call__(self, record: Record) -> Tensor:
        """[g, g]."""
        assert record.tokenize is not None
        prompts = record.scene.source_prompt, record.scene.target_prompt
        _, columns = changed_columns(*map(record.tokenize, prompts))
        return _looked_for(record, "target", columns)


@dataclass(frozen=True)
class BlendedWord(MapMethod):
    """PIE-Bench's blended word, the half that names the source, as ``TargetWords`` looks for words.

    Where words are only inserted the map is 0; otherwise a sample without a blended word has none.
    draws: None for ``num_repeat``.
    """

    knows: ClassVar[Knows] = "word"

    draws: int | None = None

    @property
    def needs(self) -> Needs:
        return Needs(
            conditions=("source",),
            cross_attention=("map",),
            texts=("blended_words",),
            draws=self.draws,
        )

    def __call__(self, record: Record) -> Tensor:
        """[g, g]."""
        assert record.tokenize is not None
        source = record.scene.blended_source
        columns = range(1, 1 + len(record.tokenize(source)[1:-1]))
        return _looked_for(record, "blended_words", tuple(columns))


def _looked_for(record: Record, text: str, columns: tuple[int, ...]) -> Tensor:
    attention = word_attention(record.at("source"), record.map_size, text=text)
    return mean_over_words(attention[[column for column in columns if column < len(attention)]])
