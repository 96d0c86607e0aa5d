"""What a sample's edits are: whose, under which method's mask at which threshold, which are equal.

Equal edits have the same name, so that each is painted and scored once.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import Sample
from piebench_masks.editing.external import MaskSource, external_methods
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.binarize import nearest_exact
from piebench_masks.masks.method import MapMethod
from piebench_masks.run import Run, once
from piebench_masks.settings import EXTERNAL, UNMASKED
from piebench_masks.stages.masks import read_map


@dataclass(frozen=True)
class Variant:
    """One method's mask at one threshold, bool [h,w] of the latents. Prints as its name.

    An edit made elsewhere lies in a ``file``, and its mask, which is not known, has no pixel.
    """

    editor: str
    method: str
    threshold: float
    mask_source: MaskSource
    mask: NDArray[np.bool_] = field(repr=False)
    file: Path | None = None

    @cached_property
    def name(self) -> str:
        """A hash of the mask's or the file's bytes: equal masks give equal edits."""
        if self.file is None:
            content = np.packbits(self.mask).tobytes()
        else:
            content = self.file.read_bytes() if self.file.is_file() else str(self.file).encode()
        return hashlib.sha256(content).hexdigest()[:16]

    def __str__(self) -> str:
        return f"edit {self.name} ({self.editor}, mask {self.method} at {self.threshold:g})"


def variants(run: Run, sample: Sample, editor: str) -> list[Variant]:
    """What one editor makes: the unmasked edit, then one under every method at its thresholds.

    Methods without a map are left out. Maps are cut at the image's size and the mask is then
    brought to the latents' by nearest-exact, as in the reference's edit script. The oracle's mask
    is the annotated one itself. Of editor ``external`` there is one for each of its methods,
    whether the file is there or not.
    """
    if editor == EXTERNAL:
        inside = Path(run.cfg.dataset.image_dir) / sample.image_path
        return [
            Variant(name, source, nan, source, np.empty(0, bool), root / name / inside)
            for root, methods in [others(run)]
            for name, source in methods.items()
        ]
    image, latent = run.sizes
    everywhere = np.ones((latent, latent), dtype=bool)
    found = [Variant(editor, UNMASKED, nan, "none", everywhere)]
    for method in run.methods.values():
        cuts = edit_thresholds(run, method)
        source: MaskSource = "oracle" if method.reads == "annotation" else "predicted"
        if method.name == "oracle":
            if sample.mask is None:
                continue
            annotation = torch.from_numpy(from_coco(sample.mask))
            masks = nearest_exact(annotation[None], latent)
        elif (soft_map := read_map(run, method, sample)) is not None:
            size, compat = (image, image), run.cfg.compat
            masks = method.binarizer.latent_masks(soft_map, cuts, size, compat, latent)
        else:
            continue
        found += [
            Variant(editor, method.name, cut, source, mask)
            for cut, mask in zip(cuts, masks.numpy(), strict=True)
        ]
    return found


@once
def others(run: Run) -> tuple[Path, dict[str, MaskSource]]:
    """Where edits made elsewhere lie, and their methods; BenchmarkError if one has the name of an
    editor of this run.
    """
    settings = run.section("editor")[EXTERNAL]
    methods = external_methods(Path(settings["root"]), settings["methods"])
    if same := methods.keys() & run.editors.keys():
        raise BenchmarkError(
            f"editor.external.root={settings['root']} has a method {min(same)}, and so is an "
            "editor of this run called: rename the folder, or choose others in "
            "editor.external.methods"
        )
    return Path(settings["root"]), methods


@once
def edit_thresholds(run: Run, method: MapMethod) -> list[float]:
    """``cfg.thresholds`` for one method: its own, (some of) its sweep, or the same list for all."""
    choice, sweep = run.cfg.thresholds, method.thresholds
    if choice == "sweep" or not method.conditions:
        return sweep
    if isinstance(choice, int):
        return [sweep[i] for i in np.linspace(0, len(sweep) - 1, choice).round().astype(int)]
    return [method.threshold] if choice == "one" else [float(cut) for cut in choice]


def distinct(found: Sequence[Variant]) -> list[Variant]:
    """The first variant of every different mask."""
    return list({variant.name: variant for variant in reversed(found)}.values())[::-1]
