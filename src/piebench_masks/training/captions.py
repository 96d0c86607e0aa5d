"""What the miniature reads: token ids, what each word points at, and which words are dropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from piebench_masks.data.shapes.grammar import EVERYTHING, Scene
from piebench_masks.training.model import MAX_TOKENS


@dataclass(frozen=True)
class Captions:
    """Token ids [N,32] of both tokenizers, the region [N,32] that each token points at, and which
    tokens are words of the prompt, bool [N,32]."""

    ids: tuple[Tensor, Tensor]
    regions: Tensor
    words: Tensor

    def at(self, rows: Tensor) -> "Captions":
        return Captions(
            (self.ids[0][rows], self.ids[1][rows]), self.regions[rows], self.words[rows]
        )


def pointed_at(regions: Tensor, pointers: Tensor) -> Tensor:
    """Where tokens' attention should lie, [B,32,h*w], each row of sum 1.

    regions: shares of cells [B,4,h,w], as `Pool` has them; pointers: [B,32], the region of each.
    """
    targets = regions.flatten(2).float()[torch.arange(len(regions))[:, None], pointers]
    return targets / targets.sum(dim=-1, keepdim=True).clamp_min(1e-3)


def tokenize(scenes: Sequence[Scene], folder: Path) -> Captions:
    """Captions of scenes with the tokenizers in ``folder``; every twentieth one is left empty."""
    said = [scene.words() if row % 20 else [] for row, scene in enumerate(scenes)]
    prompts = [" ".join(word for word, _ in words) for words in said]
    ids = [
        CLIPTokenizer.from_pretrained(folder / name)(
            prompts, padding="max_length", return_tensors="pt"
        ).input_ids
        for name in ("tokenizer", "tokenizer_2")
    ]
    regions = torch.full((len(scenes), MAX_TOKENS), EVERYTHING)
    words = torch.zeros(len(scenes), MAX_TOKENS, dtype=torch.bool)
    for row, pointed in enumerate(said):
        regions[row, 1 : 1 + len(pointed)] = torch.tensor([region for _, region in pointed])
        words[row, 1 : 1 + len(pointed)] = True
    return Captions((ids[0], ids[1]), regions, words)


def ablated_words(captions: Captions, generator: torch.Generator, share: float = 0.55) -> Tensor:
    """Which words lose their embedding, bool [B,32]; words of one id go together.

    share: of the captions that lose any. A quarter of them lose each id with p = 0.3, half of them
    one word, a quarter all the words of one object: what the benchmark's edits change.
    """
    ids, words = captions.ids[0], captions.words
    rows = torch.arange(len(ids))
    size = int(ids.max()) + 1

    def ids_at(positions: Tensor) -> Tensor:
        return F.one_hot(ids, size).mul(positions[..., None]).amax(dim=1).bool()

    draw = torch.rand(len(ids), 3, generator=generator)
    one = 1 + (draw[:, 0] * words.sum(dim=1)).long()
    single = F.one_hot(one, MAX_TOKENS).bool()
    thing = words & (captions.regions == (draw[:, 1] > 0.5).long()[:, None])
    lost = torch.rand(len(ids), size, generator=generator) < 0.3
    kind = (draw[:, 2] * 4 / share)[:, None]
    lost = torch.where(kind >= 1, ids_at(single), lost)
    lost = torch.where(kind >= 3, ids_at(thing), lost)
    lost &= kind < 4
    return lost[rows[:, None], ids] & words
