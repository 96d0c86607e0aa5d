"""A user's own pictures: a folder, and a CSV or JSONL list of prompts with optional mask PNGs.

Knows files; knows no model and no store.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from piebench_masks.data.entries import check_entries
from piebench_masks.data.parsed import DataError, Parsed, Rejection
from piebench_masks.data.pie_bench import BY_ID, EDIT_TYPES
from piebench_masks.data.ti2i import ABSENT

FIELDS = {
    "image": "image_path",
    "source_prompt": "original_prompt",
    "target_prompt": "editing_prompt",
    "mask": "mask_path",
    "target_image": "target_image_path",
    "edit_type": "editing_type_id",
    "instruction": "editing_instruction",
}
"""Columns of the list -> PIE-Bench's fields; the first three must be there, and ``id`` may be."""


def load_folder(
    root: Path,
    *,
    prompts: str = "prompts.csv",
    edit_types: Sequence[str] | None = None,
    on_error: Literal["raise", "skip"],
    progress: Callable[[], object] | None = None,
) -> Parsed:
    """A sample for every line of ``root/prompts``, and the rejected lines.

    A list ending in .jsonl holds an object a line, one in .json is Learnable Regions'
    {image: [source prompt, target prompt]}, any other is CSV with a header; the columns are those
    of ``FIELDS``. Paths are relative to ``root``; images may have any size, a mask is white
    where to edit and as large as its image. Unless given, an id is the image's name, with the
    line's number where several lines share it.

    An edit type is any text. edit_types: the types in the order of the tables, one of which every
    line names; None: they stand in the order of their first line, a line without one is of the type
    Random, and where all that are given are numbers, these are PIE-Bench's ids, 0 to 9.
    Raises ``DataError`` as ``load_pie_bench`` does.
    """
    listing = root / prompts
    try:
        text = listing.read_bytes().decode("utf-8-sig")
        rows = READERS.get(listing.suffix, _csv)(text)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        why = (isinstance(error, OSError) and error.strerror) or error  # without the path again
        raise DataError(
            f"{listing} cannot be read ({why}): write a CSV file with the columns "
            f"{', '.join(list(FIELDS)[:3])} there (and {', '.join(list(FIELDS)[3:])} where known), "
            "or name another list with dataset.load.prompts"
        ) from error
    names = [_name(row) for row in rows]
    counts = Counter(names)
    ids = [n if counts[n] == 1 else f"{n}-{i}" for i, n in enumerate(names, 1)]
    types = _types(rows, edit_types)
    absent = dict(ABSENT)
    if edit_types is not None:
        del absent["editing_type_id"]
    elif types is None:
        absent["editing_type_id"] = EDIT_TYPES[0]
    entries = [_as_pie_bench(name, row, absent) for name, row in zip(ids, rows, strict=True)]
    return check_entries(
        entries, listing, root, edit_types=types, on_error=on_error, progress=progress
    )


def _types(rows: Sequence[Any], edit_types: Sequence[str] | None) -> Mapping[str, str] | None:
    """Labels by their names in the lines, None where both are the same."""
    if edit_types is not None:
        if not isinstance(edit_types, list | tuple):
            raise DataError(
                f"edit_types is {edit_types!r}: set dataset.load.edit_types to a list of labels"
            )
        return {str(label): str(label) for label in edit_types}
    labels = [str(row["edit_type"]) for row in rows if isinstance(row, dict) and "edit_type" in row]
    numbers = labels and all(text.isascii() and text.isdecimal() for text in labels)
    return BY_ID if numbers else None


def _csv(text: str) -> list[dict[str, Any]]:
    """Rows by column, without the empty cells of optional columns."""
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns, required = list(rows.fieldnames or []), list(FIELDS)[:3]
    if not set(required) <= set(columns) or len(set(columns)) < len(columns):
        raise ValueError(f"its first line names the columns {', '.join(columns)[:200]!r}")
    return [{c: v for c, v in row.items() if v or c in required} for row in rows]


def _json_lines(text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rows += [json.loads(line, object_pairs_hook=_unique)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from error
    return rows


def _json_object(text: str) -> list[Any]:
    """An image without a pair of prompts lacks them, which ``check_entries`` says."""
    pairs = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(pairs, dict):
        raise ValueError("it is no object of {image: [source prompt, target prompt]}")
    columns = list(FIELDS)[:3]
    return [
        dict(zip(columns, [image, *pair], strict=True))
        if isinstance(pair, list) and len(pair) == 2
        else {columns[0]: image}
        for image, pair in pairs.items()
    ]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(fields := dict(pairs)) < len(pairs):
        raise ValueError("a name is given twice")
    return fields


READERS = {".jsonl": _json_lines, ".json": _json_object}


def _name(row: Any) -> str:
    """The image's name as far as an id can hold it."""
    image = row.get("image") if isinstance(row, dict) else None
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(image).stem) if isinstance(image, str) else "line"


def _as_pie_bench(name: str, row: Any, absent: Mapping[str, Any]) -> tuple[str, Any]:
    """(id, entry) of a line; ``check_entries`` finds its problems."""
    if not isinstance(row, dict):
        return name, row
    sample_id = name if row.get("id") is None else str(row["id"])
    if None in row:
        reason = "more cells than the first line: put texts with commas into quotation marks"
        return sample_id, Rejection(sample_id, reason)
    entry = {**absent, **{FIELDS[c]: value for c, value in row.items() if c in FIELDS}}
    if type(number := entry.get("editing_type_id")) is int:
        entry["editing_type_id"] = str(number)
    return sample_id, tuple(entry.items())
