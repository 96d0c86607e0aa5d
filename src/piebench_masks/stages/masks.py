"""The masks that thresholds cut from soft maps, at the latents' size: what editors paint under.

Cut once and stored as rows: the threshold, the mask's bits, and a hash of them. Equal masks have
the same hash, so that each is painted and scored once.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import Sample
from piebench_masks.editing.external import MaskSource
from piebench_masks.identity import part_identity
from piebench_masks.masks import MapMethod
from piebench_masks.masks.baselines import Oracle
from piebench_masks.masks.binarize import nearest_exact
from piebench_masks.run import Run, once
from piebench_masks.stages.maps import has_map, map_folder, map_item, read_map
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.store import Folder

VERSION = 1
KEYS = ["item", "threshold"]
DAMAGED = "its stored map is damaged: run again, it will be computed anew"


@dataclass(frozen=True)
class Mask:
    """A mask at the latents' size. ``sha``: 16 hex digits of its bits' hash; area: its share."""

    threshold: float
    sha: str
    area: float
    bits: bytes

    @classmethod
    def of(cls, threshold: float, mask: NDArray[np.bool_]) -> "Mask":
        """mask: bool [h, w]."""
        bits = np.packbits(mask).tobytes()
        sha = hashlib.sha256(bits).hexdigest()[:16]
        return cls(threshold, sha, float(mask.mean()), bits)

    def array(self, size: int) -> NDArray[np.bool_]:
        """bool [size, size]."""
        flat = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=size * size)
        return flat.astype(bool).reshape(size, size)


@once
def mask_folder(run: Run, name: str) -> Folder:
    method = run.methods[name]
    parameters: dict[str, Any] = {"version": VERSION, "sizes": list(run.sizes)}
    if isinstance(method, Oracle):
        parameters["annotation"] = "itself"
    else:
        parameters |= {
            "maps": map_folder(run, name).key,
            "binarizer": part_identity(method.cutter),
            "compat": run.cfg.compat,
        }
    return run.folder("masks", parameters)


@once
def edit_thresholds(run: Run, name: str) -> list[float]:
    """``cfg.thresholds`` for one method: its own, (some of) its sweep, or the same list for all.

    A method whose sweep has a single threshold is edited at that one.
    """
    choice, method = run.cfg.thresholds, run.methods[name]
    sweep = method.thresholds
    if choice == "one":
        return [method.threshold]
    if choice == "sweep" or len(sweep) == 1:
        return sweep
    if isinstance(choice, int):
        return [sweep[i] for i in np.linspace(0, len(sweep) - 1, choice).round().astype(int)]
    return [float(threshold) for threshold in choice]


def mask_source(method: MapMethod) -> MaskSource:
    return "oracle" if method.knows == "annotation" else "predicted"


def stored_masks(run: Run, name: str) -> dict[str, dict[float, Mask]]:
    """All masks of a method that were cut, by item and threshold."""
    rows = mask_folder(run, name).rows(KEYS)
    masks: dict[str, dict[float, Mask]] = {}
    for item, threshold, sha, area, bits in zip(
        *(rows[column] for column in (*KEYS, "mask", "area", "bits")) if len(rows) else ((),) * 5,
        strict=True,
    ):
        masks.setdefault(item, {})[threshold] = Mask(threshold, sha, area, b64decode(bits))
    return masks


class Cuts:
    """Masks of the thresholds that are edited under; an item is one method's masks of a sample."""

    name = "cut masks"
    item = "map"

    def __init__(self, run: Run, samples: Sequence[Sample]) -> None:
        self.run, self.samples = run, samples

    def prepare(self) -> None:
        """Nothing: masks are cut without a network."""

    def pending(self, *, everything: bool = False) -> list[Work]:
        todo: dict[str, list[str]] = {sample.id: [] for sample in self.samples}
        for name, method in self.run.methods.items():
            masks = {} if everything else stored_masks(self.run, name)
            thresholds = set(edit_thresholds(self.run, name))
            for sample in self.samples:
                if thresholds <= masks.get(map_item(self.run, name, sample), {}).keys():
                    continue
                annotated = isinstance(method, Oracle) and sample.mask is not None
                if annotated or has_map(self.run, name, sample):
                    todo[sample.id].append(name)
        return [Work(sample, tuple(todo[sample.id])) for sample in self.samples if todo[sample.id]]

    def load(self, batch: Batch) -> list[dict[str, Tensor | None]]:
        """A sample an entry: its maps by method, None where one is damaged."""
        return [
            {name: read_map(self.run, name, work.sample) for name in work.todo} for work in batch
        ]

    def compute(
        self, batch: Batch, loaded: list[dict[str, Tensor | None]]
    ) -> list[dict[str, list[Mask] | None]]:
        return [
            {name: self._masks(name, work.sample, soft_map) for name, soft_map in maps.items()}
            for work, maps in zip(batch, loaded, strict=True)
        ]

    def _masks(self, name: str, sample: Sample, soft_map: Tensor | None) -> list[Mask] | None:
        """Maps are cut at the image's size and the mask is then brought to the latents' by
        nearest-exact, as in the reference's edit script; the oracle's is the annotated one itself.
        """
        run, method = self.run, self.run.methods[name]
        thresholds = edit_thresholds(run, name)
        image, latent = run.sizes
        if isinstance(method, Oracle):
            assert sample.mask is not None
            annotation = torch.from_numpy(from_coco(sample.mask))
            masks = nearest_exact(annotation[None], latent).expand(len(thresholds), -1, -1)
        elif soft_map is None:
            return None
        else:
            masks = method.cutter.latent_masks(
                soft_map, thresholds, (image, image), run.cfg.compat, latent
            )
        return [Mask.of(t, mask) for t, mask in zip(thresholds, masks.numpy(), strict=True)]

    def store(self, batch: Batch, computed: list[dict[str, list[Mask] | None]]) -> list[Failure]:
        failures, rows = [], {name: list[dict[str, Any]]() for name in self.run.methods}
        for work, masks in zip(batch, computed, strict=True):
            for name, cut_masks in masks.items():
                if cut_masks is None:
                    failures.append(Failure(self.name, work.sample.id, name, DAMAGED))
                    continue
                item = map_item(self.run, name, work.sample)
                rows[name] += [_row(item, mask) for mask in cut_masks]
        for name, method_rows in rows.items():
            if method_rows:
                mask_folder(self.run, name).append_rows(method_rows)
        return failures

    def finish(self) -> None:
        for name in self.run.methods:
            mask_folder(self.run, name).compact(KEYS)


def _row(item: str, mask: Mask) -> dict[str, Any]:
    bits = b64encode(mask.bits).decode()
    return {
        "item": item,
        "threshold": mask.threshold,
        "mask": mask.sha,
        "area": mask.area,
        "bits": bits,
    }
