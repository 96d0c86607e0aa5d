"""A data set with edit types of its own: places, photographed once and asked for otherwise."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from piebench_masks.data.entries import check_entries
from piebench_masks.data.parsed import Parsed

EDIT_TYPES = {"s": "Season", "w": "Weather", "t": "Time of day"}
"""In the order of the tables, by what places.json calls them."""


def load_places(
    root: Path,
    *,
    on_error: Literal["raise", "skip"],
    progress: Callable[[], object] | None = None,
) -> Parsed:
    """places.json lists [picture, type, prompt, edited prompt]; the pictures lie beside it."""
    listing = root / "places.json"
    entries = []
    for picture, edit_type, prompt, edited in json.loads(listing.read_text()):
        entry = {
            "image_path": picture,
            "original_prompt": prompt,
            "editing_prompt": edited,
            "editing_instruction": "",
            "editing_type_id": edit_type,
            "blended_word": "",
        }  # and "mask" (PIE-Bench's runs) or "mask_path", "target_image_path" where there are any
        entries.append((Path(picture).stem, tuple(entry.items())))
    return check_entries(
        entries, listing, root, edit_types=EDIT_TYPES, on_error=on_error, progress=progress
    )
