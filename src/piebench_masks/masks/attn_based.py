"""`attn_based`: cross-attention to the changed tokens (Prompt-to-Prompt, arXiv 2208.01626)."""

from torch import Tensor

from piebench_masks.masks.binarize import RESCALED_ABOVE
from piebench_masks.masks.method import MapMethod, Record


def attention(record: Record) -> Tensor:
    """A(plain), mean over draws (METHODS.md, section 2): [g, g]."""
    return record.attention["probe"].mean(dim=0)


ATTN_BASED = MapMethod(
    name="attn_based",
    reads="attention",
    conditions=("probe",),
    soft_map=attention,
    binarizer=RESCALED_ABOVE,
    threshold=0.6,
    sweep=(0.0, 1.0, 21),
)
