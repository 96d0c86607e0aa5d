"""`diffedit`: the absolute difference of noise predictions (Couairon et al., arXiv 2210.11427).

Without classifier-free guidance: SDXL-Turbo has none, and elsewhere it would multiply the
difference of the two predictions by its scale, which cancels where a threshold is a ratio to the
map's mean.
"""

from dataclasses import dataclass

from torch import Tensor

from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class DiffEdit(MapMethod):
    """|eps(target) - eps(source)|, mean over draws and channels (methods.md, section 2).

    Of captions of the concepts where there are some, as in diffusers' documentation.

    draws: of the noise, None for the run's ``num_repeat``.
    """

    threshold: float = 3.0
    sweep: tuple[float, float, int] = (0.0, 5.0, 21)
    binarizer: str = "above_ratio_of_mean"
    draws: int | None = 10

    @property
    def needs(self) -> Needs:
        return Needs(conditions=("source_concept", "target_concept"), noise=True, draws=self.draws)

    def __call__(self, record: Record) -> Tensor:
        """[h, w]."""
        difference = record.at("target_concept").noise - record.at("source_concept").noise
        return difference.abs().mean(dim=(0, 1))
