"""Edits of other methods: their folders, and the part of a file that is the edit.

Laid out as in PnP Inversion (Ju et al., ICLR 2024): ``output/<method>/annotation_images/<image>``.
Knows no model and no metric.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from piebench_masks.data.images import load_image
from piebench_masks.errors import BenchmarkError

MaskSource = Literal["none", "predicted", "oracle"]
"""The mask of an edit: none, one that a method predicted, or the annotated one."""


def external_methods(root: Path, methods: Mapping[str, MaskSource] | None) -> dict[str, MaskSource]:
    """The chosen methods, None for every folder in ``root``, taken to edit without a mask.

    Raises BenchmarkError where a method has no folder, there is none, or its mask source is none.
    """
    if (root / "annotation_images").is_dir():
        raise BenchmarkError(
            f"editor.external.root={root} is the folder of one method: set it to the one above, "
            f"editor.external.root={root.parent}"
        )
    folders = sorted(path.name for path in root.glob("*") if path.is_dir())
    chosen: dict[str, MaskSource] = dict(methods) if methods else dict.fromkeys(folders, "none")
    if not chosen or not chosen.keys() <= set(folders):
        raise BenchmarkError(
            f"editor.external.root={root} has no folder {', '.join(chosen) or 'of any method'}: "
            "set it to the folder that holds <method>/annotation_images/, as PnP Inversion's "
            "output/ does"
        )
    if bad := set(chosen.values()) - {"none", "predicted", "oracle"}:
        raise BenchmarkError(f"editor.external.methods: {bad} is not none, predicted or oracle")
    return chosen


def load_edit(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The edit [H,W,3] in a file: the whole of it if square or of the source's shape.

    Any other picture is a strip of panels, whose last square is the edit (methods.md, section 5).
    Raises ImageError.
    """
    image = load_image(path)
    if image.shape == shape:
        return image
    side = min(image.shape[:2])
    return image[-side:, -side:]
