"""What an edit is scored against, and the parts of the image that are scored. Knows no metric."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from piebench_masks.batching import Blocks
from piebench_masks.metrics.column import SUFFIXES, Part

READS = ("image", "target_image", "prompts", "mask")
"""What a metric may look at, by the names of a sample's fields."""


class CaseTensors(NamedTuple):
    """source uint8 [H, W, 3], edited uint8 [V, H, W, 3], masks bool [P, H, W]: one for each of
    ``suffixes``, the parts that hold a pixel.
    """

    source: Tensor
    edited: Tensor
    masks: Tensor
    suffixes: tuple[str, ...]


class Known(dict[tuple[bytes, ...], Any]):
    """What a network has given, by the content of what it was shown: nothing is shown twice while
    it is remembered, whichever protocol asks.
    """

    LIMIT: ClassVar[int] = 20_000

    def fill(
        self, keys: Sequence[tuple[bytes, ...]], results: Callable[[list[int]], Sequence[Any]]
    ) -> list[Any]:
        """What belongs to each key; results: what belongs to the keys of these places, which are
        not known yet and differ.
        """
        if len(self) > self.LIMIT:
            self.clear()
        new = {key: place for place, key in reversed([*enumerate(keys)]) if key not in self}
        places = sorted(new.values())
        if places:
            found = results(places)
            self.update((keys[place], one) for place, one in zip(places, found, strict=True))
        return [self[key] for key in keys]


def content(array: np.ndarray) -> bytes:
    """A digest of an array's numbers and shape."""
    digest = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    digest.update(array.tobytes())
    return digest.digest()


@dataclass(frozen=True)
class EditCase:
    """One sample's images and prompts.

    source: uint8 [H, W, 3]; target: the true edited image of that shape, None where unknown;
    mask: bool [H, W], True in the part to edit, None where the benchmark has none.
    """

    source: np.ndarray
    target: np.ndarray | None
    mask: np.ndarray | None
    source_prompt: str
    target_prompt: str

    def as_read(self, reads: Collection[str]) -> "EditCase":
        """The case without what is not in ``reads``, of ``READS``."""
        case = self
        if "target_image" not in reads:
            case = replace(case, target=None)
        if "prompts" not in reads:
            case = replace(case, source_prompt="", target_prompt="")
        if "mask" not in reads:
            case = replace(case, mask=None)
        return case

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """The parts to score that hold a pixel, bool [H, W] by their columns' suffix."""
        masks: dict[Part, np.ndarray] = {"whole": np.ones(self.source.shape[:2], dtype=bool)}
        if self.mask is not None:
            masks |= {"outside": ~self.mask, "inside": self.mask}
        return {SUFFIXES[part]: mask for part, mask in masks.items() if mask.any()}

    def on(
        self, device: torch.device, edited: np.ndarray, suffixes: Collection[str] | None = None
    ) -> CaseTensors:
        """The source, its edits uint8 [V, H, W, 3] and the parts to score, on a device."""
        parts = {s: part for s, part in self.parts.items() if suffixes is None or s in suffixes}
        return CaseTensors(
            source=torch.from_numpy(self.source).to(device),
            edited=torch.from_numpy(edited).to(device),
            masks=torch.from_numpy(np.stack(list(parts.values()))).to(device),
            suffixes=tuple(parts),
        )


def score_parts(
    name: str,
    case: EditCase,
    edited: np.ndarray,
    device: torch.device,
    scoring: Callable[[CaseTensors], Callable[[Tensor, Tensor], Tensor]],
    *,
    blocks: Blocks,
    known: Known,
) -> dict[str, np.ndarray]:
    """Every edit [V, H, W, 3] on every part in one batched pass: float64 [V] for ``name`` + suffix.

    scoring: what is to be scored -> indices of edits [rows] and of parts [rows] -> scores [rows].
    Parts without a pixel are NaN. Scores that are ``known`` are not taken again.
    """
    parts = case.parts
    pairs = [(suffix, edit) for suffix in parts for edit in range(len(edited))]
    digests = [content(image) for image in edited]
    by_part = {suffix: (content(case.source), content(part)) for suffix, part in parts.items()}

    def results(places: list[int]) -> list[float]:
        wanted = [pairs[place] for place in places]
        tensors = case.on(device, edited, {suffix for suffix, _ in wanted})
        part = torch.tensor([tensors.suffixes.index(suffix) for suffix, _ in wanted])
        edit = torch.tensor([edit for _, edit in wanted])
        return blocks.map(scoring(tensors), edit, part).double().tolist()

    keys = [(*by_part[suffix], digests[edit]) for suffix, edit in pairs]
    scores = dict(zip(pairs, known.fill(keys, results), strict=True))
    return {
        f"{name}{suffix}": np.array([scores.get((suffix, i), np.nan) for i in range(len(edited))])
        for suffix in SUFFIXES.values()
    }
