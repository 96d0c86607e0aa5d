"""TI2I (Tumanyan et al., CVPR 2023) by the mapping file that comes with PIE-Bench: no masks.

Knows files; knows no model and no store.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from piebench_masks.data.entries import check_entries
from piebench_masks.data.parsed import Parsed
from piebench_masks.data.pie_bench import BY_ID, read_mapping

ABSENT: dict[str, Any] = {"editing_instruction": "", "editing_type_id": "0", "blended_word": ""}
"""The fields that its entries lack; type 0 (random) promises nothing."""


def load_ti2i(
    root: Path,
    *,
    mapping_file: str = "mapping_file_ti2i_benchmark.json",
    image_dir: str = "annotation_images",
    on_error: Literal["raise", "skip"],
    progress: Callable[[], object] | None = None,
) -> Parsed:
    """The samples of a TI2I mapping file and the rejected entries, as ``load_pie_bench`` has them.

    Images may have any size, source prompts may be empty, and paths may start with the
    ``data/annotation_images/`` of PnP Inversion's checkout.
    """
    mapping, images = root / mapping_file, root / image_dir
    entries = [(name, _as_pie_bench(entry)) for name, entry in read_mapping(mapping, images)]
    return check_entries(
        entries, mapping, images, edit_types=BY_ID, on_error=on_error, progress=progress
    )


def _as_pie_bench(entry: Any) -> Any:
    if not isinstance(entry, tuple):
        return entry
    pairs = [
        (field, value.removeprefix("data/annotation_images/"))
        if field == "image_path" and isinstance(value, str)
        else (field, value)
        for field, value in entry
    ]
    return (*pairs, *((field, text) for field, text in ABSENT.items() if field not in dict(entry)))
