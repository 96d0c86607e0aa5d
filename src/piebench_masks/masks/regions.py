"""`regions`: boxes at salient places, weighted by CLIP's losses of what an inpainting model paints
under each (Learnable Regions, Lin et al., arXiv 2311.16432).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from piebench_masks.data.scene import Knows
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.method import CandidateBoxes, MapMethod
from piebench_masks.masks.record import MapError, Record
from piebench_masks.masks.region_search import Search
from piebench_masks.regions.boxes import ends
from piebench_masks.regions.choice import best_sizes, weighted_union
from piebench_masks.regions.losses import Losses

Searched = Literal["all", "best", "none"]


@dataclass(frozen=True)
class Regions(MapMethod):
    """The sum of boxes, each weighted by softmax(-loss / temperature), its largest value 1.

    boxes: all; the best one of each anchor; none: all with equal weights, and nothing is painted.
    loss: the weighted sum of those with the text, the direction of the change, and the structure.
    A mask that CLIP has chosen is not judged independently by CLIP.
    """

    binarizer: str = "above"
    boxes: Searched = "all"
    temperature: float = 0.01
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.boxes not in get_args(Searched):
            raise BenchmarkError(
                f"Regions.boxes is {self.boxes!r}: choose one of {', '.join(get_args(Searched))}"
            )
        if not self.temperature > 0 or len(self.weights) != 3:
            raise BenchmarkError(
                f"Regions has temperature={self.temperature} and {len(self.weights)} weights: give "
                "a temperature above 0, and a weight for each of three losses"
            )

    @property
    def knows(self) -> Knows:  # type: ignore[override]
        return "nothing" if self.boxes == "none" else "scores"

    @property
    def forwards(self) -> int:  # type: ignore[override]
        return 1 if self.candidates is None else self.search.forwards

    @property
    def candidates(self) -> Search | None:
        return None if self.boxes == "none" else self.search

    def load(self, device: torch.device) -> None:
        if self.candidates is None:
            self.search.boxes.dino.network(device, "exact")

    def __call__(self, record: Record) -> Tensor:
        """[32, 32] with patches of 8 pixels, in [0, 1]."""
        if self.candidates is None:
            _, masks = self.search.boxes.placed(record.scene.image, record.device)
            none = torch.zeros(self.search.boxes.count)
            return weighted_union(masks.flatten(0, 1), none, self.temperature)
        if "losses" not in record.candidates:
            raise MapError("no candidates were painted: call the method through `soft_maps`")
        masks, loss = record.candidates["masks"], self._loss(record.candidates)
        if self.boxes == "best":
            chosen = torch.arange(len(loss)), best_sizes(loss)
            return weighted_union(masks[chosen], loss[chosen], self.temperature)
        return weighted_union(masks.flatten(0, 1), loss.flatten(), self.temperature)

    def candidate_boxes(self, measured: Mapping[str, Tensor]) -> CandidateBoxes:
        loss, side = self._loss(measured), measured["masks"].shape[-1]
        return CandidateBoxes(
            points=(measured["points"].flip(-1) + 0.5) / side,
            boxes=ends(measured["masks"]) / side,
            values=loss,
            best=best_sizes(loss),
            kept=int(loss.argmin()),
            by="loss",
        )

    def _loss(self, measured: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum, [P, S]."""
        return Losses(*measured["losses"].unbind(dim=-1)).weighted(self.weights)
