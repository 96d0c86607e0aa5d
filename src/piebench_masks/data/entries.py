"""Entries as PIE-Bench's mapping file has them: every one checked, the sound ones as samples.

Every data set is brought to such entries and checked by the same rules. Knows pictures; knows no
listing's format, no model and no store.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from piebench_masks.data.images import MAX_PIXELS, ImageError, load_image
from piebench_masks.data.parsed import DataError, Parsed, Rejection, label_problem
from piebench_masks.data.rle import decode_runs, to_coco, with_border
from piebench_masks.data.sample import Sample

SAMPLE_ID = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,100}")
"""The form of a sample's id, which becomes part of file names."""

TEXT_FIELDS = (
    "image_path",
    "original_prompt",
    "editing_prompt",
    "editing_instruction",
    "editing_type_id",
    "blended_word",
)
PICTURES = ("image_path", "target_image_path", "mask_path")
"""Fields that name pictures, all but the first optional: source, true edit, mask."""


def check_entries(
    entries: Sequence[tuple[str, Any]],
    listing: Path,
    images: Path,
    *,
    edit_types: Mapping[str, str] | None,
    size: int | None = None,
    border: int = 0,
    on_error: Literal["raise", "skip"],
    progress: Callable[[], object] | None = None,
) -> Parsed:
    """The sound ones of (id, entry) pairs as samples, in their order, and the rejected ones.

    An entry is PIE-Bench's as a tuple of (field, value) pairs, none of them merged; instead of
    ``mask`` it may name the mask's picture in ``mask_path``. A ``Rejection`` stands for an entry
    that could not be read.

    listing: the file that they come from, for messages; images: the folder of all pictures;
    edit_types: the labels of the data set's types in their order, by the ``editing_type_id`` of
    entries; None: that id is the label, and the types stand in the order of their first samples;
    size: the side that every image must have, None for any. The rest as in ``load_pie_bench``.
    """
    if not (size is None or (type(size) is int and 0 < size**2 <= MAX_PIXELS)):
        raise DataError(f"mask_size is {size!r}: set dataset.load.mask_size to the images' side")
    if not (type(border) is int and 0 <= border <= (size or 0) // 2):
        raise DataError(
            f"border is {border!r}: set dataset.load.border to a number of pixels, at most half "
            "of mask_size"
        )
    counts = Counter(sample_id for sample_id, _ in entries)
    entry_by_id = dict(entries)  # the first place of a repeated id, where it is rejected

    def check(sample_id: str) -> Sample | Rejection:
        if counts[sample_id] > 1:
            return Rejection(sample_id, f"the id is given {counts[sample_id]} times")
        entry = entry_by_id[sample_id]
        if isinstance(entry, Rejection):
            return entry
        try:
            return _check_entry(sample_id, entry, images, size, border, edit_types)
        except OSError as error:  # a file that changes while it is read
            return Rejection(sample_id, f"its files cannot be read ({error})")

    samples: list[Sample] = []
    rejections: list[Rejection] = []
    with ThreadPoolExecutor() as pool:
        for outcome in pool.map(check, entry_by_id):
            if isinstance(outcome, Sample):
                samples.append(outcome)
            else:
                rejections.append(outcome)
            if progress is not None:
                progress()
    if rejections and on_error == "raise":
        raise DataError(
            f"{len(rejections)} of {len(entry_by_id)} entries of {listing} cannot be used; correct "
            "them, or leave them out with on_error=skip:",
            rejections,
        )
    if not samples:
        raise DataError(f"{listing} holds no usable sample among {len(entry_by_id)}:", rejections)
    labels = [s.edit_type for s in samples] if edit_types is None else edit_types.values()
    return Parsed(samples, rejections, tuple(dict.fromkeys(labels)))


def check_runs(runs: object, height: int, width: int) -> str | None:
    """What is wrong with a row-major run list as it came from a file, or None.

    A run may pass the end of the image (it is cut there), but may not start behind it.
    """
    if not isinstance(runs, list) or not all(type(run) is int for run in runs):
        return "mask is not a list of integers"
    if len(runs) % 2:
        return f"mask has an odd number of entries ({len(runs)}), not starts and lengths in pairs"
    end = 0
    for index, (start, length) in enumerate(zip(runs[::2], runs[1::2], strict=True)):
        run = f"mask run {index} (start {start}, length {length})"
        if start < 0 or length < 0:
            return f"{run} is negative"
        if start < end:
            return f"{run} overlaps or precedes the run before it"
        if start >= height * width:
            return f"{run} starts behind the last of the {height}x{width} pixels"
        end = start + length
    return None


def _check_entry(
    sample_id: str,
    entry: Any,
    images: Path,
    size: int | None,
    border: int,
    edit_types: Mapping[str, str] | None,
) -> Sample | Rejection:
    problems = list(_problems(sample_id, entry, images, size, edit_types))
    if problems:
        return Rejection(sample_id, "; ".join(problems))
    fields = dict(entry)
    target, edit_type = fields.get("target_image_path"), fields["editing_type_id"]
    annotated = _annotated(fields, images, size)
    texts = fields["original_prompt"], fields["editing_prompt"]
    return Sample(
        id=sample_id,
        image_path=fields["image_path"],
        source_prompt=_without_brackets(texts[0]),
        target_prompt=_without_brackets(texts[1]),
        instruction=fields["editing_instruction"],
        edit_type=edit_type if edit_types is None else edit_types[edit_type],
        blended_word=fields["blended_word"],
        mask=None if annotated is None else to_coco(with_border(annotated, border)),
        target_image_path=target,
        image_digest=_sha256(images / fields["image_path"]),
        target_digest=None if target is None else _sha256(images / target),
        source_marked=marked_words(texts[0]),
        target_marked=marked_words(texts[1]),
        annotated=None if annotated is None else to_coco(annotated),
        border=border,
        source_text=texts[0],
        target_text=texts[1],
    )


def _annotated(fields: dict[str, Any], images: Path, size: int | None) -> NDArray[np.bool_] | None:
    """A sound entry's mask: the bright pixels of its picture, or its runs in an image this size."""
    if fields.get("mask_path") is not None:
        bright: NDArray[np.bool_] = np.any(load_image(images / fields["mask_path"]) > 127, axis=-1)
        return bright
    if fields.get("mask") is None:
        return None
    shape = (size, size) if size else _image_size(images / fields["image_path"])
    return decode_runs(fields["mask"], *shape)


def _problems(
    sample_id: str,
    entry: Any,
    images: Path,
    size: int | None,
    edit_types: Mapping[str, str] | None,
) -> Iterator[str]:
    if not SAMPLE_ID.fullmatch(sample_id):
        yield "the id is no file name of at most 100 letters, digits, '.', '_' and '-'"
    if not isinstance(entry, tuple):
        yield "the entry is not an object"
        return
    fields = dict(entry)
    if len(fields) < len(entry):
        yield "a field is given twice"
    texts: dict[str, str] = {}
    optional = [name for name in PICTURES[1:] if fields.get(name) is not None]
    for name in (*TEXT_FIELDS, *optional):
        if name not in fields:
            yield f"{name} is missing"
        elif not isinstance(fields[name], str):
            yield f"{name} is not a text"
        elif not _is_unicode(fields[name]):
            yield f"{name} is not valid Unicode"
        else:
            texts[name] = fields[name]
    edit_type = texts.get("editing_type_id")
    if edit_type is not None and (problem := _type_problem(edit_type, edit_types)):
        yield f"editing_type_id {problem}"
    # The other pictures of an entry are as large as its first; the first as is asked for.
    expected = None if size is None else (size, size)
    for name in (name for name in PICTURES if name in texts):
        size_or_problem = _size_or_problem(images, texts[name], expected)
        if isinstance(size_or_problem, str):
            yield f"{name} {size_or_problem}"
        else:
            expected = size_or_problem
    runs = fields.get("mask")
    if runs is not None and expected and (problem := check_runs(runs, *expected)):
        yield problem


def _type_problem(edit_type: str, edit_types: Mapping[str, str] | None) -> str | None:
    if edit_types is None:
        return label_problem(edit_type)
    if edit_type in edit_types:
        return None
    return f"{edit_type!r} is none of {', '.join(map(repr, edit_types))}"


def _size_or_problem(
    images: Path, relative: str, expected: tuple[int, int] | None
) -> tuple[int, int] | str:
    """(height, width) of an image that is there, readable and of that size; else the problem."""
    try:
        path = images / relative
        is_inside = path.resolve().is_relative_to(images.resolve())  # resolve follows symlinks
        if not is_inside or Path(relative).is_absolute() or ".." in Path(relative).parts:
            return f"{relative!r} leaves {images}"
        if "\\" in relative:
            return f"{relative!r} has Windows separators: write / instead"
        height, width = _image_size(path)
    except (OSError, ValueError, RuntimeError) as error:  # NUL, too long a name, a loop of links
        return f"{relative!r} is no path of a file ({error})"
    except ImageError as error:
        return str(error)
    if expected is not None and (height, width) != expected:
        return f"{path} is {width}x{height}, not {expected[1]}x{expected[0]}: resize it"
    return height, width


def _image_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image, all of which is read: a torn one is an ``ImageError``."""
    height, width, _ = load_image(path).shape
    return height, width


def marked_words(prompt: str) -> tuple[str, ...]:
    """The words and phrases inside a prompt's outermost pairs of brackets, in their order.

    A bracket without its partner marks nothing.
    """
    open_brackets: list[int] = []
    pairs: list[tuple[int, int]] = []
    for place, character in enumerate(prompt):
        if character == "[":
            open_brackets.append(place)
        elif character == "]" and open_brackets:
            start = open_brackets.pop()
            while pairs and pairs[-1][0] > start:  # inside this pair
                pairs.pop()
            pairs.append((start, place))
    phrases = [" ".join(_without_brackets(prompt[i:j]).split()) for i, j in pairs]
    return tuple(phrase for phrase in phrases if phrase)


def _without_brackets(prompt: str) -> str:
    return prompt.replace("[", "").replace("]", "")


def _is_unicode(text: str) -> bool:
    """JSON can spell half of a surrogate pair, which no file name or tokenizer takes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
