"""Which token of a target prompt stands for which of its source prompt (Hertz et al. 2208.01626).

Pure functions on token ids and words; knows no tokenizer, no network and no attention.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from piebench_masks.diffusion.prompt_diff import Compat

Bounds = tuple[float, float]
"""The shares of the steps where something starts and where it stops."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model sees it: token ids with BOS and EOS, and the positions of each word's
    tokens.
    """

    ids: list[int]
    words: list[str]
    positions: list[list[int]]
    compat: Compat

    @classmethod
    def parse(
        cls,
        text: str,
        tokenize: Callable[[str], list[int]],
        token_text: Callable[[int], str],
        *,
        max_tokens: int,
        compat: Compat,
    ) -> "Prompt":
        """tokenize: ids with BOS and EOS; token_text: what one id reads.

        exact: white space separates words; a word has the tokens of the word alone.
        reference: single blanks separate words; a word ends where the summed length of its tokens'
        texts reaches its own. Two blanks in a row or letters of two bytes shift that place.
        """
        ids = tokenize(text)
        words = text.split() if compat == "exact" else text.split(" ")
        positions: list[list[int]] = [[] for _ in words]
        word, start, length = 0, 1, 0
        if compat == "exact":
            for word, spelling in enumerate(words):
                stop = start + len(tokenize(spelling)) - 2
                positions[word] = list(range(start, stop))
                start = stop
        else:
            for position, token in enumerate(ids[1:-1], start=1):
                if word == len(words):
                    break
                positions[word].append(position)
                length += len(token_text(token).strip("#"))
                if length >= len(words[word]):
                    word, length = word + 1, 0
        if len(ids) > max_tokens:
            ids = [*ids[: max_tokens - 1], ids[-1]]
        visible = [[p for p in tokens if p < max_tokens - 1] for tokens in positions]
        return cls(ids, words, visible, compat)

    def find(self, word: str) -> list[int]:
        """The positions of a word's tokens, at all of its places.

        exact: case and the punctuation around a word do not count; reference: they do.
        """
        bare = _bare if self.compat == "exact" else str
        indices = [k for k, other in enumerate(self.words) if bare(other) == bare(word)]
        return [position for k in indices for position in self.positions[k]]


@dataclass(frozen=True)
class Alignment:
    """A target's attention to its L text positions, as shares of the source's and of the target's.

    source_share: [L, L], the share of each source position (rows) in a target position (columns);
    target_share: [L], 1 where the target keeps its attention, else 0.
    """

    source_share: Tensor
    target_share: Tensor


def refine(source: Prompt, target: Prompt, length: int) -> Alignment:
    """Tokens that both prompts have are matched, new ones keep their own attention.

    By Needleman and Wunsch, with 1 for a match, -1 for a mismatch and 0 for a gap. Every position
    behind the target's end is matched with itself.
    """
    source_share, target_share = torch.zeros(length, length), torch.zeros(length)
    for j, i in enumerate(_matches(source.ids, target.ids)):
        if i is None:
            target_share[j] = 1
        else:
            source_share[i, j] = 1
    padding = torch.arange(len(target.ids), length)
    source_share[padding, padding] = 1
    return Alignment(source_share, target_share)


def replace(source: Prompt, target: Prompt, length: int) -> Alignment | None:
    """Words are matched in their order; None where one prompt has more. The tokens of words that
    differ share evenly.

    reference: every position behind the last word that differs is matched with itself, although the
    words before it may have more tokens in one prompt than in the other.
    """
    if len(source.words) != len(target.words):
        return None
    source_share = torch.zeros(length, length)
    i = j = 0
    words = zip(source.words, target.words, source.positions, target.positions, strict=True)
    for source_word, target_word, rows, columns in words:
        if source_word == target_word or not rows or not columns:
            continue
        while i < rows[0]:
            source_share[i, j] = 1
            i, j = i + 1, j + 1
        if len(rows) == len(columns):
            source_share[rows, columns] = 1
        else:
            source_share[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1 / len(columns)
        i, j = i + len(rows), j + len(columns)
    for step in range(length - max(i, j)):
        source_share[(j if target.compat == "reference" else i) + step, j + step] = 1
    unmatched = source_share.sum(dim=0) == 0
    return Alignment(source_share, unmatched.float() * (target.compat == "exact"))


def cross_schedule(
    target: Prompt, steps: int, length: int, default: Bounds, words: Mapping[str, Bounds]
) -> Tensor:
    """Whether a step replaces a position's attention by the source's: [steps + 1, L] of 0 and 1.

    As published, the schedule has one step too many, and bounds are shares of steps + 1.
    """
    schedule = torch.zeros(steps + 1, length)
    places = torch.arange(length).tolist()
    for positions, (start, stop) in [
        (places, default),
        *((target.find(word), bounds) for word, bounds in words.items()),
    ]:
        schedule[:, positions] = 0
        schedule[int(start * (steps + 1)) : int(stop * (steps + 1)), positions] = 1
    return schedule


def blended_positions(source: Prompt, target: Prompt, blended: str, length: int) -> Tensor:
    """[2, L], 1 where the first blended word stands in the source, and the second in the target.

    blended: "cat dog", or empty.
    """
    positions, words = torch.zeros(2, length), blended.split()[:2]
    if words:
        positions[0, source.find(words[0])] = 1
        positions[1, target.find(words[-1])] = 1
    return positions


def _bare(word: str) -> str:
    return word.strip(string.punctuation).lower()


def _matches(source: Sequence[int], target: Sequence[int]) -> list[int | None]:
    """The source's index of every target token, None for a gap.

    From the end on, a tie leaves the target's token without a match.
    """
    score = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, source_id in enumerate(source, start=1):
        for j, target_id in enumerate(target, start=1):
            diagonal = score[i - 1][j - 1] + (1 if source_id == target_id else -1)
            score[i][j] = max(score[i][j - 1], score[i - 1][j], diagonal)
    matches: list[int | None] = [None] * len(target)
    i, j = len(source), len(target)
    while i and j:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            matches[j] = i
    return matches
