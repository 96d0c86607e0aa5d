"""Items that networks find on a picture: by a panoptic segmenter, or by texts.

Knows pictures and networks, and no file of masks (D-Edit, arXiv 2403.04880).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.identity import NO_OUTPUT
from piebench_masks.items.partition import Partition, PartitionError
from piebench_masks.masks.segmenter import Segmenter
from piebench_masks.weights import frozen, loading, quiet, sought, weights_folder

REST, EVERYTHING = "rest", "all"


@dataclass(frozen=True)
class Panoptic:
    """Items by Mask2Former (arXiv 2112.01527) or OneFormer (arXiv 2211.06220).

    model: a hub name or a folder of transformers; score: segments with a lower one are left out;
    revision, cache_dir: of the hub. Loading raises WeightsError.
    """

    model: str = field(default="facebook/mask2former-swin-base-coco-panoptic", metadata=NO_OUTPUT)
    score: float = 0.5
    revision: str | None = field(default=None, metadata=NO_OUTPUT)
    cache_dir: str | None = field(default=None, metadata=NO_OUTPUT)

    def identity(self) -> Any:
        """Contents of a folder's files, a hub network's name and commit."""
        with self._loading():
            return self._weights()[1]

    def load(self, device: torch.device) -> None:
        """Load the network: WeightsError."""
        _ = self._network(device)

    @torch.no_grad()
    def __call__(self, picture: NDArray[np.uint8], device: torch.device) -> Partition:
        """The items of a picture, uint8 [H, W, 3]; named as the network's classes are."""
        network, processor, task = self._network(device)
        inputs = processor(images=picture, return_tensors="pt", **task)
        (found,) = processor.post_process_panoptic_segmentation(
            network(**inputs.to(device)),
            threshold=self.score,
            label_ids_to_fuse=set(),
            target_sizes=[picture.shape[:2]],
        )
        classes = network.config.id2label
        names = {one["id"]: classes[one["label_id"]] for one in found["segments_info"]}
        return panoptic_items(found["segmentation"].long().cpu(), names)

    def _network(self, device: torch.device) -> tuple[Any, Any, dict[str, Any]]:
        """The network, its processor, and what the processor is given beside the picture."""
        if device not in self._loaded:
            from transformers.utils import logging

            with self._loading(), quiet(logging):
                self._loaded[device] = self._load(device)
        return self._loaded[device]

    def _load(self, device: torch.device) -> tuple[Any, Any, dict[str, Any]]:
        from transformers import (
            AutoImageProcessor,
            AutoModelForUniversalSegmentation,
            AutoTokenizer,
            OneFormerProcessor,
        )

        folder = self._weights()[0]
        network = frozen(AutoModelForUniversalSegmentation, folder, device)
        if network.config.model_type != "oneformer":
            return network, AutoImageProcessor.from_pretrained(folder, local_files_only=True), {}
        # The names of its classes are in its config, too; the file of them would be downloaded.
        pixels = AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, class_info_file=None
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        length = network.config.task_seq_len
        processor = OneFormerProcessor(pixels, tokenizer, task_seq_length=length)
        return network, processor, {"task_inputs": ["panoptic"]}

    def _weights(self) -> Any:
        return weights_folder(self.model, revision=self.revision, cache_dir=self.cache_dir)

    def _loading(self) -> Any:
        return loading(
            "The panoptic segmenter",
            where=sought(self.model, self.revision, self.cache_dir),
            remedy="check the network and the name, or give a local folder of a Mask2Former or "
            "OneFormer in its place",
        )

    @cached_property
    def _loaded(self) -> dict[torch.device, tuple[Any, Any, dict[str, Any]]]:
        return {}


@torch.no_grad()
def text_items(
    segmenter: Segmenter, picture: NDArray[np.uint8], texts: Sequence[str], device: torch.device
) -> Partition:
    """Items named by texts: where the segmenter finds each, cut by its own threshold.

    Where several are found, a pixel goes to the one with the largest share, of equals to the first.
    A text that is found nowhere is no item; what no text covers is one item, `rest`, the first.
    Raises PartitionError without texts.
    """
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise PartitionError("no text to look for: name the items that the picture shows")
    shares = segmenter.found([picture] * len(texts), texts, device)
    size = (picture.shape[0], picture.shape[1])
    best, segments = torch.full(size, -torch.inf), torch.zeros(size, dtype=torch.long)
    for number, share in enumerate(shares, start=1):
        found, levels = segmenter.cutter.cut(share, [segmenter.threshold], size, "exact")
        better = (found >= levels[0]) & (found > best)
        best, segments = best.where(~better, found), segments.where(~better, number)
    return panoptic_items(segments, dict(enumerate(texts, start=1)))


def panoptic_items(segmentation: Tensor, names: Mapping[int, str]) -> Partition:
    """The items of a segmentation, in the order of their segments' numbers.

    segmentation: the segment of every pixel, integers [H, W], below 1 where there is none: such
    pixels are one item, `rest`, the first. names: of the segments. Without segments the one item is
    `all`.
    """
    segments = segmentation.clamp_min(0)
    there = segments.unique()
    if there.tolist() == [0]:
        return Partition.from_labels(segments, [EVERYTHING])
    labels = torch.searchsorted(there, segments)
    return Partition.from_labels(labels, [_name(names[i]) if i else REST for i in there.tolist()])


def _name(text: str) -> str:
    """As an item can be called."""
    return " ".join(re.sub(r"[/\\]|[^\S ]", " ", text).split())
