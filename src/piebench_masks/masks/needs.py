"""What a map method asks of the model: data, so that all methods' rows can be one U-Net call."""

from dataclasses import dataclass, replace
from typing import Literal

from piebench_masks.diffusion.recorder import Grid
from piebench_masks.errors import BenchmarkError

Condition = Literal[
    "source", "target", "probe", "probe_ablated", "source_concept", "target_concept"
]
"""The text that a row sees: a prompt; the probe, which is the source prompt, or the target where
words are only inserted; the probe with its changed words zeroed (methods.md, section 2); the
captions of a concept, which is the prompt where there are none."""
Text = Literal["source", "target", "probe", "blended_words", "instruction"]


@dataclass(frozen=True)
class Needs:
    """What is recorded of which U-Net rows; ``Needs()``: nothing, and no model is needed.

    One row for each of ``conditions``, ``levels`` and ``draws`` (None: the run's ``num_repeat``).
    levels: shares of the noise schedule in (0, 1], such as 0.9; None: where the run's ``strength``
    starts. Of each row are recorded (shapes: ``Recording``):
    noise: the predicted noise; attention: to the changed words, summed over the layers of
    ``map_size``; cross_attention, self_attention, queries: in the layers of these grids, each a
    side, ``map`` (the model's ``map_size``), ``finest`` or ``every``.
    heads, words: of the cross-attention, their mean or each; every text position or the changed
    ones. texts: the row's own text and others that its queries are compared with, for words that
    are not in its prompt. layers: of the self-attention, their mean or each.
    Different recordings of different rows are united by ``|``.
    """

    conditions: tuple[Condition, ...] = ()
    levels: tuple[float | None, ...] = (None,)
    draws: int | None = None
    noise: bool = False
    attention: bool = False
    cross_attention: tuple[Grid, ...] = ()
    heads: Literal["mean", "each"] = "mean"
    words: Literal["each", "changed"] = "each"
    texts: tuple[Literal["own"] | Text, ...] = ("own",)
    self_attention: tuple[Grid, ...] = ()
    layers: Literal["mean", "each"] = "mean"
    queries: tuple[Grid, ...] = ()
    others: tuple["Needs", ...] = ()

    def __post_init__(self) -> None:
        recordings = (self.cross_attention, self.self_attention, self.queries)
        if bool(self.conditions) != (self.noise or self.attention or any(recordings)):
            raise BenchmarkError(
                "Needs must name conditions (whose rows to ask for) and what to record of them "
                f"(noise, attention, ...), or neither of both; this one has {self}"
            )
        concepts = {"source_concept", "target_concept"} & {*self.conditions}
        if concepts and (self.attention or self.cross_attention):
            raise BenchmarkError(
                f"Needs asks for attention to words of {' and '.join(sorted(concepts))}, which may "
                "be several captions: ask for source and target, or for noise"
            )
        if self.draws is not None and not 1 <= self.draws <= 1000:
            raise BenchmarkError(f"Needs.draws is {self.draws}: it must be null or from 1 to 1000")
        for level in self.levels:
            if level is not None and not 0.001 <= level <= 1:
                raise BenchmarkError(f"Needs.levels has {level}: give shares from 0.001 to 1")

    def __or__(self, other: "Needs") -> "Needs":
        return replace(self, others=(*self.others, other))

    @property
    def parts(self) -> tuple["Needs", ...]:
        """All that are united, those without rows left out."""
        parts = (replace(self, others=()), *(p for other in self.others for p in other.parts))
        return tuple(part for part in parts if part.conditions)
