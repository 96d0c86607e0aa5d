"""New tokens that stand for the items of pictures, and texts that they occur in (D-Edit, arXiv
2403.04880).

Knows tokenizers and text encoders; must not know how the tokens are learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.diffusion.text import Text
from piebench_masks.errors import BenchmarkError
from piebench_masks.items.attention import ItemTexts

ITEM_LENGTH = 40
"""Positions of a text in which an item's tokens occur; others have all of the model's."""
PLACE = "*"
"""Where an item's tokens stand in a text."""


@dataclass(frozen=True)
class ItemPrompt:
    """A text that an item attends to.

    item: the number of the item whose tokens take the place of every ``*`` in the text; None for a
    text of words alone, in which ``*`` means nothing.
    """

    text: str = PLACE
    item: int | None = None

    def __post_init__(self) -> None:
        if self.item is not None and PLACE not in self.text:
            raise BenchmarkError(
                f"the text {self.text!r} has no {PLACE}, where the item's tokens belong: write "
                "one, for example 'a photo of *'"
            )


def new_rows(
    text: Text, items: int, tokens: int, generator: torch.Generator, compat: Compat
) -> list[Tensor]:
    """First embeddings of ``tokens`` new tokens for each item: of every encoder [items tokens, d].

    Normal, with the mean and the standard deviation of all of the encoder's embeddings, float32 on
    the CPU. reference: these two are of the table with the new rows in it, that are standard normal
    before; the draws are those of the public code.
    """
    tables = [each.get_input_embeddings().weight.detach().float().cpu() for each in text.encoders]
    rows = [torch.empty(0, table.shape[1]) for table in tables]
    for _ in range(items):
        for encoder, table in enumerate(tables):
            width = table.shape[1]
            grown = table
            if compat == "reference":
                size = len(table) + len(rows[encoder]) + tokens
                fresh = torch.randn(size, width, generator=generator)[-tokens:]
                grown = torch.cat([table, rows[encoder], fresh])
            std, mean = grown.std(), grown.mean()
            drawn = [torch.randn(width, generator=generator) * std + mean for _ in range(tokens)]
            rows[encoder] = torch.cat([rows[encoder], torch.stack(drawn)])
    return rows


def token_ids(text: Text, prompt: ItemPrompt, tokens: int, compat: Compat) -> list[Tensor]:
    """The ids of a prompt, by text encoder: long [L], from the start token to the padding.

    An item's tokens have the ids behind the encoder's vocabulary. L is `ITEM_LENGTH` where an
    item's tokens occur. reference: also where the words have "#" or "$" in them.
    """
    own = prompt.item is not None
    is_short = own or (compat == "reference" and not {"#", "$"}.isdisjoint(prompt.text))
    length = min(ITEM_LENGTH, text.max_tokens) if is_short else text.max_tokens
    parts = prompt.text.split(PLACE) if own else [prompt.text]
    rows = []
    for tokenizer, encoder in zip(text.tokenizers, text.encoders, strict=True):
        first = encoder.get_input_embeddings().num_embeddings + (prompt.item or 0) * tokens
        ids = _words(tokenizer, parts[0])
        for part in parts[1:]:
            ids += [*range(first, first + tokens), *_words(tokenizer, part)]
        ids = [tokenizer.bos_token_id, *ids[: length - 2], tokenizer.eos_token_id]
        rows.append(torch.tensor(ids + [tokenizer.pad_token_id] * (length - len(ids))))
    return rows


def item_texts(
    text: Text,
    rows: Sequence[Tensor],
    prompts: Sequence[ItemPrompt],
    masks: Tensor,
    *,
    tokens: int,
    compat: Compat,
) -> ItemTexts:
    """What the items of a picture attend to. Has a gradient where ``rows`` ask for one.

    rows: as of `new_rows`; prompts: of n items; masks: bool [n, H, W]. The pooled embedding is the
    mean of those at the end tokens of the texts of items that have pixels. reference: of all, each
    at its largest id, which is the last of an item's tokens.
    """
    ids = [token_ids(text, prompt, tokens, compat) for prompt in prompts]
    hidden: dict[int, Tensor] = {}
    pooled: dict[int, Tensor] = {}
    for length in sorted({len(row[0]) for row in ids}):
        numbers = [number for number, row in enumerate(ids) if len(row[0]) == length]
        stacked = [torch.stack(each) for each in zip(*(ids[n] for n in numbers), strict=True)]
        last = stacked[-1]
        if compat == "exact":
            last = last == text.tokenizers[-1].eos_token_id
        encoded = text.embed(stacked, last.long().argmax(dim=1), rows)
        hidden |= zip(numbers, encoded.hidden, strict=True)
        pooled |= zip(numbers, encoded.pooled, strict=True)
    is_seen = masks.flatten(1).any(dim=1).tolist()
    seen = [n for n in range(len(prompts)) if compat == "reference" or is_seen[n]]
    if not seen:
        raise BenchmarkError("no item has a pixel: give masks of which one is not empty")
    mean = torch.stack([pooled[number] for number in seen]).mean(dim=0)
    return ItemTexts(masks, [hidden[number] for number in range(len(prompts))], mean)


def _words(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return ids
