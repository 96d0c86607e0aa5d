"""`noise_based`: the SIGNED difference of two noise predictions, as the reference takes it.

Positive and negative differences cancel out over channels and draws; `diffedit` takes the absolute
difference, as the published method does.
"""

from dataclasses import dataclass

from torch import Tensor

from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class NoiseBased(MapMethod):
    """eps(source) - eps(target), mean over draws and channels (methods.md, section 2).

    draws: of the noise, None for the run's ``num_repeat``.
    """

    threshold: float = 3.0
    sweep: tuple[float, float, int] = (0.0, 5.0, 21)
    binarizer: str = "above_ratio_of_mean"
    draws: int | None = None

    @property
    def needs(self) -> Needs:
        return Needs(conditions=("source", "target"), noise=True, draws=self.draws)

    def __call__(self, record: Record) -> Tensor:
        """[h, w]."""
        return (record.at("source").noise - record.at("target").noise).mean(dim=(0, 1))
