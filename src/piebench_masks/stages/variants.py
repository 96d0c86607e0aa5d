"""The edits of a sample: editor, mask method and threshold of each.

Equal edits have the same name, so that each is painted and scored once.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from pathlib import Path

import numpy as np

from piebench_masks.data.sample import Sample
from piebench_masks.editing.external import MaskSource, external_methods
from piebench_masks.errors import BenchmarkError
from piebench_masks.run import Run, once
from piebench_masks.settings import BOUNDS, EXTERNAL, IDENTITY, RECONSTRUCTION, TARGET, UNMASKED
from piebench_masks.stages.latents import image_file
from piebench_masks.stages.maps import map_item
from piebench_masks.stages.masks import Mask, edit_thresholds, mask_source, stored_masks


@dataclass(frozen=True)
class Variant:
    """One edit of a sample, called by its editor and its mask. Prints as its name.

    An edit made elsewhere lies in a ``file``, and its mask is not known: so do the bounds, the
    source picture and the true edited one.
    """

    editor: str
    method: str
    threshold: float
    mask_source: MaskSource
    mask: Mask | None = field(default=None, repr=False)
    file: Path | None = None

    @cached_property
    def name(self) -> str:
        """The mask's hash or that of the file's content: equal masks give equal edits."""
        if self.mask is not None:
            return self.mask.sha
        assert self.file is not None
        content = self.file.read_bytes() if self.file.is_file() else str(self.file).encode()
        return hashlib.sha256(content).hexdigest()[:16]

    @property
    def mask_area(self) -> float:
        """The edited share of the latents, NaN where it is not known."""
        return nan if self.mask is None else self.mask.area

    def __str__(self) -> str:
        return f"edit {self.name} ({self.editor}, mask {self.method} at {self.threshold:g})"


class Variants:
    """The edits of a run's samples, from the masks that are stored when this is made."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._masks = {name: stored_masks(run, name) for name in run.methods} if run.editors else {}

    def of(self, sample: Sample, editor: str) -> list[Variant]:
        """What one editor makes: the unmasked edit, then one under every method at its thresholds.

        Methods without a mask are left out. Of editor ``external`` there is one for each of its
        methods, whether the file is there or not; of ``bounds`` the source and the true edit, where
        the sample has one; of ``reconstruction`` a single one.
        """
        run = self.run
        if editor == BOUNDS:
            bounds = {IDENTITY: sample.image_path, TARGET: sample.target_image_path}
            return [
                Variant(name, name, nan, "none", file=image_file(run, path))
                for name, path in bounds.items()
                if path
            ]
        if editor == RECONSTRUCTION:
            return [Variant(editor, editor, nan, "none", unmasked(run))]
        if editor == EXTERNAL:
            relative_path = Path(run.cfg.dataset.image_dir) / sample.image_path
            root, methods = others(run)
            return [
                Variant(name, source, nan, source, file=root / name / relative_path)
                for name, source in methods.items()
            ]
        variants = [Variant(editor, UNMASKED, nan, "none", unmasked(run))]
        for name, method in run.methods.items():
            masks = self._masks[name].get(map_item(run, name, sample), {})
            variants += [
                Variant(editor, name, threshold, mask_source(method), masks[threshold])
                for threshold in edit_thresholds(run, name)
                if threshold in masks
            ]
        return variants


@once
def unmasked(run: Run) -> Mask:
    size = run.sizes[1]
    return Mask.of(nan, np.ones((size, size), dtype=bool))


@once
def others(run: Run) -> tuple[Path, dict[str, MaskSource]]:
    """Where edits made elsewhere lie, and their methods; BenchmarkError if one has the name of an
    editor of this run.
    """
    settings = run.section("editor")[EXTERNAL]
    methods = external_methods(Path(settings["root"]), settings["methods"])
    if clashes := methods.keys() & {*run.editors, IDENTITY, TARGET}:
        raise BenchmarkError(
            f"editor.external.root={settings['root']} has a method {min(clashes)}, and so is an "
            "editor of this run or a bound called: rename the folder, or choose others in "
            "editor.external.methods"
        )
    return Path(settings["root"]), methods


def distinct(variants: Sequence[Variant]) -> list[Variant]:
    """The first variant of every different mask."""
    return list({variant.name: variant for variant in reversed(variants)}.values())[::-1]
