"""Items that networks find on a picture: by a panoptic segmenter, or by texts.

Knows pictures and networks; no file of masks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from piebench_masks.items.partition import Partition

REST, EVERYTHING = "rest", "all"


def panoptic_items(segmentation: Tensor, names: Mapping[int, str]) -> Partition:
    """The items of a panoptic segmentation, in the order of their segments' numbers.

    segmentation: the segment of every pixel, integers [H, W], below 1 where there is none: such
    pixels are one item, `rest`, the first. names: of the segments. Without segments one item is
    `all`.
    """
    segments = segmentation.clamp_min(0)
    there = segments.unique()
    if there.tolist() == [0]:
        return Partition.from_labels(segments, [EVERYTHING])
    labels = torch.searchsorted(there, segments)
    return Partition.from_labels(labels, [names[i] if i else REST for i in there.tolist()])
