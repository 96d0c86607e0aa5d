"""`ours`: the attention that the changed tokens lose when their embeddings are zeroed."""

from torch import Tensor

from piebench_masks.masks.binarize import RESCALED_ABOVE
from piebench_masks.masks.method import MapMethod, Record


def attention_lost(record: Record) -> Tensor:
    """A(plain) - A(zeroed), mean over draws (METHODS.md, section 2): [g, g]."""
    return (record.attention["probe"] - record.attention["probe_ablated"]).mean(dim=0)


OURS = MapMethod(
    name="ours",
    reads="attention",
    conditions=("probe", "probe_ablated"),
    soft_map=attention_lost,
    binarizer=RESCALED_ABOVE,
    threshold=0.7,
    sweep=(0.0, 1.0, 21),
)
