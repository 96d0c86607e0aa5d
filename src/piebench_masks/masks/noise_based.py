"""`noise_based`: the SIGNED difference of two noise predictions, as the reference takes it.

Positive and negative differences cancel out over channels and draws; `diffedit` takes the absolute
difference, as the published method does.
"""

from torch import Tensor

from piebench_masks.masks.binarize import ABOVE_RATIO_OF_MEAN
from piebench_masks.masks.method import MapMethod, Record


def signed_noise_difference(record: Record) -> Tensor:
    """eps(source) - eps(target), mean over draws and channels (METHODS.md, section 2): [h, w]."""
    return (record.noise["source"] - record.noise["target"]).mean(dim=(0, 1))


NOISE_BASED = MapMethod(
    name="noise_based",
    reads="noise",
    conditions=("source", "target"),
    soft_map=signed_noise_difference,
    binarizer=ABOVE_RATIO_OF_MEAN,
    threshold=3.0,
    sweep=(0.0, 5.0, 21),
)
