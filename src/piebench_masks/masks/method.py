"""What a map method is: settings as data, needs as data, and a function from a record to a map.

Maps are soft, on their native grid. Must not know files, configuration or any single method.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from piebench_masks.data.scene import Knows
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.editor import Sources
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import NO_OUTPUT
from piebench_masks.masks.binarize import BINARIZERS, Binarizer
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.record import Record

CUTTING = ("threshold", "sweep", "binarizer")
"""The settings that change masks and no map."""


class PostProcessor(Protocol):
    """What can be done to a map before it is cut: a frozen dataclass like a method, or a function.

    Where it has ``needs``, they are asked for beside the method's, and its record has only them.
    """

    def __call__(self, soft_map: Tensor, record: Record) -> Tensor: ...


class Painted(NamedTuple):
    """Candidates of one sample: what was measured of them, by name, on the CPU, and the edits,
    uint8 [N, H, W, 3].
    """

    measurements: dict[str, Tensor]
    edits: Tensor


class CandidateBoxes(NamedTuple):
    """Boxes that were painted, as a report draws them; lengths are shares of the picture's side.

    points: (x, y) of the P anchors, [P, 2]; boxes: (x1, y1, x2, y2) of S boxes each, [P, S, 4];
    values: what they are chosen by, [P, S], a loss or a score; best: the size of each anchor's best
    box, long [P]; kept: the number of the chosen edit among the P * S.
    """

    points: Tensor
    boxes: Tensor
    values: Tensor
    best: Tensor
    kept: int
    by: Literal["loss", "score"]


class Candidates(Protocol):
    """Edits that a method paints and scores before it makes a map: a frozen dataclass.

    A stage of its own keeps them, whatever map is made of them later.
    """

    def load(self, device: torch.device) -> None:
        """Load the networks, so that what is wrong with them ends a run at once."""

    def __call__(self, backbone: Backbone, sources: Sources, seed: int) -> Painted:
        """Of one sample; seed: the sample's own. MapError where there are none."""


@dataclass(frozen=True)
class MapMethod:
    """One way to say where an edit belongs; its fields are its settings.

    A method is a frozen dataclass that inherits from this one, has ``needs`` and ``__call__``, and
    sets the default of every field that it wants another one for.
    threshold: for one mask; sweep: first and last threshold and their number; binarizer: a name in
    BINARIZERS: these three change masks and no map. post: what is done to the map, in this order.
    version: to be raised when the formula changes; knows: the leak level, what it may look at;
    forwards: passes of networks of its own that a map takes.
    Raises BenchmarkError for settings that no map can be cut with.
    """

    version: ClassVar[int] = 1
    knows: ClassVar[Knows] = "prompts"
    forwards: ClassVar[int] = 0

    threshold: float = field(default=0.5, metadata=NO_OUTPUT)
    sweep: tuple[float, float, int] = field(default=(0.0, 1.0, 21), metadata=NO_OUTPUT)
    binarizer: str = field(default="rescaled_above", metadata=NO_OUTPUT)
    post: tuple[PostProcessor, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """The three settings of cutting stay outside of identities under another default, too."""
        super().__init_subclass__(**kwargs)
        for name in CUTTING:
            default = cls.__dict__.get(name)
            if isinstance(default, float | tuple | str):
                setattr(cls, name, field(default=default, metadata=NO_OUTPUT))

    def __post_init__(self) -> None:
        for setting in fields(self):
            if isinstance(setting.default, tuple):  # YAML has lists
                object.__setattr__(self, setting.name, tuple(getattr(self, setting.name)))
        name = type(self).__name__
        if self.binarizer not in BINARIZERS:
            raise BenchmarkError(
                f"{name}.binarizer is {self.binarizer!r}; choose one of {', '.join(BINARIZERS)}"
            )
        numbers = (self.threshold, *self.sweep)
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise BenchmarkError(f"{name}.threshold and sweep must be finite numbers: {numbers}")
        if len(self.sweep) != 3 or not (
            isinstance(self.sweep[2], int)
            and 1 <= self.sweep[2] <= 1000
            and (self.sweep[0] < self.sweep[1] or self.sweep[2] == 1)
        ):
            raise BenchmarkError(
                f"{name}.sweep is {list(self.sweep)}: it must be [first, last, number] with first "
                "below last and at most 1000 thresholds"
            )

    @property
    def needs(self) -> Needs:
        return Needs()

    def __call__(self, record: Record) -> Tensor:
        """The soft map, float32 [g, g] on the CPU; MapError where there is none."""
        raise NotImplementedError

    def maps(self, records: Iterable[Record]) -> list[Tensor | Exception]:
        """Of many samples, in the place of those without a map what was raised.

        To be overridden where a network of the method's own takes batches; its results must not
        depend on them.
        """
        return [_outcome(self, record) for record in records]

    def load(self, device: torch.device) -> None:
        """Load networks of the method's own, so that what is wrong with them ends a run at once."""

    @property
    def candidates(self) -> Candidates | None:
        """What is painted and scored before a map; None: nothing."""
        return None

    def candidate_boxes(self, measured: Mapping[str, Tensor]) -> CandidateBoxes | None:
        """Of what was measured of a sample's candidates; None: they are no boxes."""
        return None

    @property
    def cutter(self) -> Binarizer:
        """How thresholds make masks of the maps."""
        return BINARIZERS[self.binarizer]

    @property
    def thresholds(self) -> list[float]:
        """The sweep; 0.15, not 0.15000000000000002, so that it can be named. A binarizer that
        finds its own level has one entry.
        """
        if not self.cutter.thresholded:
            return [self.threshold]
        return np.linspace(*self.sweep).round(6).tolist()

    @property
    def all_needs(self) -> tuple[Needs, ...]:
        """The method's needs, then those of each post-processor."""
        return (self.needs, *(getattr(post, "needs", Needs()) for post in self.post))


def _outcome(method: MapMethod, record: Record) -> Tensor | Exception:
    try:
        return method(record)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a method may be anybody's
        return error
