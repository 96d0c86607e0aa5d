"""What a map method is shown of one sample: the scene, and the recordings that it asked for.

Whatever was not asked for is an error that names what to declare.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.attention import Layer
from piebench_masks.diffusion.level import Level
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.needs import Condition


class MapError(BenchmarkError):
    """A sample that a method has no map for."""


@dataclass(frozen=True)
class Recording:
    """What was recorded of the rows of one text condition at one noise level.

    All on the CPU, float32. latents: z_t [draws, C, h, w], at ``level``; tokens: the ids of the
    row's text as the model sees them, with BOS and EOS; changed: the text positions of its changed
    words. arrays: what the properties below give; name: of the rows, for errors.
    """

    name: str = "these rows"
    latents: Tensor | None = None
    level: Level | None = None
    tokens: tuple[int, ...] = ()
    changed: tuple[int, ...] = ()
    arrays: Mapping[str, Any] = field(default_factory=dict)

    @property
    def noise(self) -> Tensor:
        """The predicted noise: [draws, C, h, w]."""
        return self._array("noise", "noise=True")

    @property
    def attention(self) -> Tensor:
        """Attention to the changed words, mean over them and heads, sum over layers: [draws,g,g]"""
        return self._array("attention", "attention=True")

    @property
    def cross_attention(self) -> dict[int, Tensor]:
        """By grid: [draws, layers, L, g, g]; with heads=each [draws, layers, heads, L, g, g]."""
        return self.attention_to("own")

    def attention_to(self, text: str) -> dict[int, Tensor]:
        """As ``cross_attention``, of the rows' queries and another text's keys."""
        texts = "" if text == "own" else f", texts=({text!r},)"
        return self._array(f"attention to {text}", f"cross_attention=(16,){texts}")

    @property
    def self_attention(self) -> dict[int, Tensor]:
        """By grid, N = g * g, rows sum to 1: [draws, N, N]; layers=each: [draws, layers, N, N]."""
        return self._array("self_attention", 'self_attention=("finest",)')

    @property
    def queries(self) -> dict[int, Tensor]:
        """Of the cross-attention layers, by grid: [draws, layers, heads, N, d]."""
        return self._array("queries", "queries=(16,)")

    def layers(self, grid: int, kind: str = "cross") -> tuple[Layer, ...]:
        """Where the layers of that grid are, in the order of the arrays; kind: cross or self."""
        return self._array(f"{kind} layers", "cross_attention or self_attention").get(grid, ())

    def _array(self, name: str, declaration: str) -> Any:
        if name not in self.arrays:
            raise MapError(
                f"{name} of {self.name} was not recorded: declare it in the method's needs, "
                f"Needs(conditions=(...), {declaration})"
            )
        return self.arrays[name]


@dataclass(frozen=True)
class Record:
    """All that a method may look at, for one sample.

    scene: what its leak level (``knows``) shows; recordings: by condition and level, for ``at``;
    map_size: the side of maps that come from no recording; seed: the sample's own; device: where a
    network of the method's own belongs; external: of a mask made elsewhere, float32 [h, w] in
    [0, 1]; candidates: what was painted and scored for the method, as its own `Candidates` gave
    it; tokenize: a text's token ids, with BOS and EOS.
    """

    scene: Scene
    map_size: int
    seed: int = 0
    recordings: Mapping[tuple[str, float | None], Recording] = field(default_factory=dict)
    compat: Compat = "exact"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    external: Tensor | None = None
    candidates: Mapping[str, Tensor] = field(default_factory=dict)
    tokenize: Callable[[str], Sequence[int]] | None = None

    def at(self, condition: Condition, level: float | None = None) -> Recording:
        """What was recorded of a text condition; level: as in the needs."""
        if (condition, level) not in self.recordings:
            levels = "" if level is None else f", levels=({level},)"
            raise MapError(
                f"no row of condition {condition!r}{levels and f' at level {level}'} was asked "
                f"for: declare it in the method's needs, Needs(conditions=({condition!r},){levels})"
            )
        return self.recordings[condition, level]

    def positions(self, words: str, tokens: Sequence[int]) -> tuple[int, ...]:
        """The text positions where ``words`` stand among ``tokens`` (a recording's): every place;
        none where they are not there. Words are texts between spaces.
        """
        if self.tokenize is None:
            raise MapError("no model is loaded, so that no text has tokens: declare some needs")
        sought = tuple(self.tokenize(words)[1:-1])
        if not sought:
            return ()
        starts = range(len(tokens) - len(sought) + 1)
        places = [i for i in starts if tuple(tokens[i : i + len(sought)]) == sought]
        return tuple(dict.fromkeys(i + k for i in places for k in range(len(sought))))
