"""PIE-Bench's folder form: a mapping file of entries, and a folder of images.

Any benchmark saved in that form is read here. Knows files; knows no model and no store.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from piebench_masks.data.entries import check_entries
from piebench_masks.data.parsed import DataError, Parsed

EDIT_TYPES: tuple[str, ...] = (
    "Random",
    "Change Object",
    "Add Object",
    "Delete Object",
    "Change Attribute Content",
    "Change Attribute Pose",
    "Change Attribute Color",
    "Change Attribute Material",
    "Change Background",
    "Change Style",
)
"""Labels of PIE-Bench's edit types, by ``editing_type_id`` (methods.md, section 1)."""

BY_ID: dict[str, str] = {str(number): label for number, label in enumerate(EDIT_TYPES)}
"""PIE-Bench's edit types by what an entry calls them."""


def load_pie_bench(
    root: Path,
    *,
    mapping_file: str = "mapping_file.json",
    image_dir: str = "annotation_images",
    mask_size: int,
    border: int,
    on_error: Literal["raise", "skip"],
    progress: Callable[[], object] | None = None,
) -> Parsed:
    """The samples of a PIE-Bench folder in the order of its mapping file, and the rejected entries.

    Images and masks must be ``mask_size`` x ``mask_size``; the outermost ``border`` pixels of every
    mask are set (methods.md, section 1). An entry without a ``mask`` (TI2I) gives a sample without
    one; an optional ``target_image_path`` names the true edited image. ``progress`` is called once
    for each finished entry.
    Raises ``DataError`` if the folder is not there or not readable, if no sample is left, and with
    ``on_error="raise"`` for any offending entry; its ``rejections`` hold all of them.
    """
    mapping, images = root / mapping_file, root / image_dir
    entries = read_mapping(mapping, images)
    return check_entries(
        entries,
        mapping,
        images,
        edit_types=BY_ID,
        size=mask_size,
        border=border,
        on_error=on_error,
        progress=progress,
    )


def read_mapping(mapping: Path, images: Path) -> list[tuple[str, Any]]:
    """The (id, entry) pairs; every JSON object is a tuple of pairs, so that none is lost.

    Raises ``DataError`` where the file or the folder of images is not there or not readable.
    """
    for path, kind in ((mapping, "file"), (images, "folder")):
        if not (path.is_file() if kind == "file" else path.is_dir()):
            raise DataError(
                f"The {kind} {path} was looked for and is not there. Get PIE-Bench v1 from the "
                "authors of PnP Inversion (Ju et al., arXiv 2310.01506), put its "
                f"{images.name}/ and {mapping.name} into one folder, and set dataset.root to "
                "that folder."
            )
    try:
        entries = json.loads(mapping.read_bytes(), object_pairs_hook=tuple)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{mapping} cannot be read as JSON ({error}): download the file again or correct it"
        ) from error
    if not isinstance(entries, tuple):
        raise DataError(f"{mapping} is not an object of samples by id: download the file again")
    return list(entries)
