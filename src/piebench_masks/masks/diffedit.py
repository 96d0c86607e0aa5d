"""`diffedit`: the absolute difference of noise predictions (Couairon et al., arXiv 2210.11427).

Without classifier-free guidance: SDXL-Turbo has none, and elsewhere it would multiply the
difference of the two predictions by its scale, which cancels where a threshold is a ratio to the
map's mean.
"""

from torch import Tensor

from piebench_masks.masks.binarize import ABOVE_RATIO_OF_MEAN
from piebench_masks.masks.method import MapMethod, Record


def noise_difference(record: Record) -> Tensor:
    """|eps(target) - eps(source)|, mean over draws and channels (METHODS.md, section 2): [h, w]."""
    return (record.noise["target"] - record.noise["source"]).abs().mean(dim=(0, 1))


DIFFEDIT = MapMethod(
    name="diffedit",
    reads="noise",
    conditions=("source", "target"),
    soft_map=noise_difference,
    binarizer=ABOVE_RATIO_OF_MEAN,
    threshold=3.0,
    sweep=(0.0, 5.0, 21),
    draws=10,
)
