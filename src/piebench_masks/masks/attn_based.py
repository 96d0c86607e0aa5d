"""`attn_based`: cross-attention to the changed tokens (Prompt-to-Prompt, arXiv 2208.01626)."""

from dataclasses import dataclass

from torch import Tensor

from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.record import Record


@dataclass(frozen=True)
class AttnBased(MapMethod):
    """A(plain), mean over draws (methods.md, section 2).

    draws: of the noise, None for the run's ``num_repeat``.
    """

    threshold: float = 0.6
    draws: int | None = None

    @property
    def needs(self) -> Needs:
        return Needs(conditions=("probe",), attention=True, draws=self.draws)

    def __call__(self, record: Record) -> Tensor:
        """[g, g]."""
        return record.at("probe").attention.mean(dim=0)
