"""Which tokens an edit changes: pure functions on lists of token ids.

Knows no tokenizer and no network. Definition and reference quirks: methods.md, section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Ablation, Span
from piebench_masks.errors import BenchmarkError

Compat = Literal["exact", "reference"]


class PromptError(BenchmarkError):
    """The two prompts have no difference that the reference implementation could work with."""


@dataclass(frozen=True)
class PromptDiff:
    """What to look at when source and target prompt differ.

    probe: the prompt whose attention is read; columns: its changed text positions;
    ablated: the token ids whose embeddings are zeroed (every occurrence in the probe prompt).
    """

    probe: Literal["source", "target"]
    columns: tuple[int, ...]
    ablated: tuple[int, ...]


def prompt_diff(
    source: Sequence[int], target: Sequence[int], *, max_tokens: int, compat: Compat
) -> PromptDiff:
    """Align two prompts' token ids (with BOS and EOS, untruncated) and name what changed.

    The probe is the source if anything of it is deleted or replaced, else the target.
    exact: the ids as the model sees them, cut to ``max_tokens``; columns and ids of the probe
    alone, each id once; no columns where the model sees no change.
    reference: every quirk of the published code; raises PromptError for identical prompts.
    """
    if compat == "reference":
        return _reference_diff(source, target)
    source, target = _truncated(source, max_tokens), _truncated(target, max_tokens)
    opcodes = SequenceMatcher(None, source, target).get_opcodes()
    source_columns = [i for tag, i1, i2, *_ in opcodes if tag != "equal" for i in range(i1, i2)]
    target_columns = [j for tag, *_, j1, j2 in opcodes if tag == "insert" for j in range(j1, j2)]
    if source_columns:
        return PromptDiff(
            "source", tuple(source_columns), tuple(dict.fromkeys(source[i] for i in source_columns))
        )
    return PromptDiff(
        "target", tuple(target_columns), tuple(dict.fromkeys(target[j] for j in target_columns))
    )


def changed_columns(
    source: Sequence[int], target: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The text positions of the source prompt and of the target prompt that the other lacks."""
    opcodes = SequenceMatcher(None, source, target).get_opcodes()
    changes = [opcode for opcode in opcodes if opcode[0] != "equal"]
    return (
        tuple(i for _, i1, i2, *_ in changes for i in range(i1, i2)),
        tuple(j for *_, j1, j2 in changes for j in range(j1, j2)),
    )


def ablation(diff: PromptDiff, spans: Sequence[Span], compat: Compat) -> Ablation:
    """What is zeroed of the probe prompt. spans: the characters of each of its tokens.

    exact: the changed words, by each encoder's own tokens; reference: the first one's ids in all.
    """
    if compat == "reference":
        return Ablation(ids=frozenset(diff.ablated))
    return Ablation(spans=tuple(spans[column] for column in diff.columns))


def token_weights(diff: PromptDiff, max_tokens: int) -> Tensor:
    """The weights [max_tokens] that turn a sum over text positions into the mean over columns.

    A column named twice counts twice; columns past the end are left out. No columns at all give
    zeros; only columns past the end, which ``compat: reference`` can name, give its NaN.
    """
    if not diff.columns:
        return torch.zeros(max_tokens)
    columns = torch.tensor(diff.columns)
    counts = columns[columns < max_tokens].bincount(minlength=max_tokens).float()
    return counts / counts.sum()


def _truncated(ids: Sequence[int], max_tokens: int) -> list[int]:
    return [*ids[: max_tokens - 1], ids[-1]] if len(ids) > max_tokens else list(ids)


def _reference_diff(source: Sequence[int], target: Sequence[int]) -> PromptDiff:
    opcodes = SequenceMatcher(None, source, target).get_opcodes()
    slices: list[slice] = []
    ablated: list[int] = []
    for kind in ("delete", "replace", "insert"):
        changes = [opcode for opcode in opcodes if opcode[0] == kind]
        if not changes:
            continue
        slices += [
            slice(j1, j2) if kind == "insert" else slice(i1, i2) for _, i1, i2, j1, j2 in changes
        ]
        # All slices so far are read again, whichever prompt they belong to: this lists deleted ids
        # twice when there are replaced ones, and takes target ids at source positions.
        ids = target if kind == "insert" else source
        ablated += [token for part in slices for token in ids[part]]
    if not slices:
        raise PromptError(
            "source and target prompt have the same tokens: use compat: exact, which gives an "
            "empty map, or leave the sample out"
        )
    columns = tuple(column for part in slices for column in range(part.start, part.stop))
    insert_only = all(tag in ("equal", "insert") for tag, *_ in opcodes)
    return PromptDiff("target" if insert_only else "source", columns, tuple(ablated))
