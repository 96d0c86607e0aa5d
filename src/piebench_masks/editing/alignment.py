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
"""From and up to which share of the steps."""


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

        exact: words are what white space separates, and have the tokens that they have alone.
        reference: words are what single blanks separate, and end where the lengths of the tokens'
        texts have reached theirs: with two blanks in a row or letters of two bytes, elsewhere.
        """
        ids = tokenize(text)
        words = text.split() if compat == "exact" else text.split(" ")
        positions: list[list[int]] = [[] for _ in words]
        word, start, length = 0, 1, 0
        if compat == "exact":
            for word, alone in enumerate(words):
                stop = start + len(tokenize(alone)) - 2
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
        seen = [[p for p in tokens if p < max_tokens - 1] for tokens in positions]
        return cls(ids, words, seen, compat)

    def find(self, word: str) -> list[int]:
        """The positions of a word's tokens, wherever it stands.

        exact: whatever its case, and the punctuation around it; reference: as it is written.
        """
        bare = _bare if self.compat == "exact" else str
        found = [k for k, other in enumerate(self.words) if bare(other) == bare(word)]
        return [position for k in found for position in self.positions[k]]


@dataclass(frozen=True)
class Alignment:
    """How a target's attention to its L text positions is made of the source's and of its own.

    source: [L, L], the share that each source position (rows) has in a target position (columns);
    own: [L], 1 where the target keeps what it has.
    """

    source: Tensor
    own: Tensor


def refine(source: Prompt, target: Prompt, length: int) -> Alignment:
    """Tokens that both prompts have are matched, new ones keep their own attention.

    By Needleman and Wunsch, with 1 for a match, -1 for a mismatch and nothing for a gap; behind the
    target's end every position is matched with itself.
    """
    share, own = torch.zeros(length, length), torch.zeros(length)
    for j, i in enumerate(_matches(source.ids, target.ids)):
        if i is None:
            own[j] = 1
        else:
            share[i, j] = 1
    behind = torch.arange(len(target.ids), length)
    share[behind, behind] = 1
    return Alignment(share, own)


def replace(source: Prompt, target: Prompt, length: int) -> Alignment | None:
    """Word stands for word; None unless there are as many. Words that differ share evenly.

    reference: behind the last word that differs every position is matched with itself, although the
    words before it may have more tokens in one prompt than in the other.
    """
    if len(source.words) != len(target.words):
        return None
    share = torch.zeros(length, length)
    i = j = 0
    words = zip(source.words, target.words, source.positions, target.positions, strict=True)
    for word, other, here, there in words:
        if word == other or not here or not there:
            continue
        while i < here[0]:
            share[i, j] = 1
            i, j = i + 1, j + 1
        if len(here) == len(there):
            share[here, there] = 1
        else:
            share[here[0] : here[-1] + 1, there[0] : there[-1] + 1] = 1 / len(there)
        i, j = i + len(here), j + len(there)
    for step in range(length - max(i, j)):
        share[(j if target.compat == "reference" else i) + step, j + step] = 1
    nothing = share.sum(dim=0) == 0
    return Alignment(share, nothing.float() * (target.compat == "exact"))


def cross_schedule(
    target: Prompt, steps: int, length: int, default: Bounds, words: Mapping[str, Bounds]
) -> Tensor:
    """At which steps whose attention is the source's: [steps + 1, L] of 0 and 1.

    One step too many, of which the bounds are shares: as published.
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


def _bare(word: str) -> str:
    return word.strip(string.punctuation).lower()


def _matches(source: Sequence[int], target: Sequence[int]) -> list[int | None]:
    """The source's index of every target token; the target's gaps first where it is all one."""
    score = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, one in enumerate(source, start=1):
        for j, two in enumerate(target, start=1):
            both = score[i - 1][j - 1] + (1 if one == two else -1)
            score[i][j] = max(score[i][j - 1], score[i - 1][j], both)
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
