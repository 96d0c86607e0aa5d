"""`chord`: the difference of clean pictures that two prompts predict, over two levels of noise
(ChordEdit, arXiv 2602.19083; from the formula).
"""

from dataclasses import dataclass

from torch import Tensor

from piebench_masks.diffusion.ddim import clean_difference
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class Chord(MapMethod):
    """|u|, mean over channels; u = (delta dv(start) + start dv(start - delta)) / (start + delta).

    dv(t) = x0(z_t, target) - x0(z_t, source), of one noise for both levels; ``start`` and ``delta``
    are shares of the noise schedule. Four U-Net rows of its own. draws: None for ``num_repeat``.
    """

    threshold: float = 3.0
    sweep: tuple[float, float, int] = (0.0, 5.0, 21)
    binarizer: str = "above_ratio_of_mean"
    start: float = 0.9
    delta: float = 0.15
    draws: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.delta < self.start <= 1:
            raise BenchmarkError(
                f"Chord.start is {self.start} and delta {self.delta}: choose 0 < delta < start <= 1"
            )

    @property
    def levels(self) -> tuple[float, float]:
        return self.start, round(self.start - self.delta, 6)

    @property
    def needs(self) -> Needs:
        return Needs(
            conditions=("source", "target"), levels=self.levels, noise=True, draws=self.draws
        )

    def __call__(self, record: Record) -> Tensor:
        """[h, w]."""
        first, second = (self._change(record, level) for level in self.levels)
        return chordal(first, second, self.start, self.delta).abs().mean(dim=(0, 1))

    def _change(self, record: Record, level: float) -> Tensor:
        """dv: [draws, C, h, w]."""
        source, target = record.at("source", level), record.at("target", level)
        assert source.level is not None
        return clean_difference(source.noise, target.noise, source.level)


def chordal(first: Tensor, second: Tensor, start: float, delta: float) -> Tensor:
    """u of dv at the level ``start``, and at the one that is ``delta`` below."""
    return (delta * first + start * second) / (start + delta)
