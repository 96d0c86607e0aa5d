"""`ours`: the attention that the changed tokens lose when their embeddings are zeroed."""

from dataclasses import dataclass

from torch import Tensor

from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class Ours(MapMethod):
    """A(plain) - A(zeroed), mean over draws (methods.md, section 2).

    draws: of the noise, None for the run's ``num_repeat``.
    """

    threshold: float = 0.7
    draws: int | None = None

    @property
    def needs(self) -> Needs:
        return Needs(conditions=("probe", "probe_ablated"), attention=True, draws=self.draws)

    def __call__(self, record: Record) -> Tensor:
        """[g, g]."""
        lost = record.at("probe").attention - record.at("probe_ablated").attention
        return lost.mean(dim=0)
