"""What writes captions of pictures. Knows no model."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Captioner(Protocol):
    """Best a frozen dataclass whose fields are its settings; see `Metric` for what it may also
    have: ``version``, ``load()``, ``identity()``, a ``device``.
    """

    def captions(self, pictures: Sequence[NDArray[np.uint8]]) -> list[str]:
        """A caption of each picture [H, W, 3], in any order of them the same."""
        ...
