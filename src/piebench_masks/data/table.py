"""The parsed samples as one Parquet table, a row a sample. Does not know where they come from."""

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from piebench_masks.data.entries import SAMPLE_ID
from piebench_masks.data.images import MAX_PIXELS
from piebench_masks.data.parsed import DataError, label_problem
from piebench_masks.data.sample import CocoRLE, Sample

RLE = pa.struct({"size": pa.list_(pa.int32()), "counts": pa.string()})
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "image_path": pa.string(),
        "source_prompt": pa.string(),
        "target_prompt": pa.string(),
        "instruction": pa.string(),
        "edit_type": pa.string(),
        "blended_word": pa.string(),
        "mask": RLE,
        "target_image_path": pa.string(),
        "image_digest": pa.string(),
        "target_digest": pa.string(),
        "source_marked": pa.list_(pa.string()),
        "target_marked": pa.list_(pa.string()),
        "annotated": RLE,
        "border": pa.int32(),
        "source_text": pa.string(),
        "target_text": pa.string(),
    }
)


def samples_table(samples: Sequence[Sample], edit_types: Sequence[str]) -> bytes:
    """The samples in their order as a Parquet file; masks as COCO RLE, null where there is none.

    Its metadata hold the data set's edit types in their order, and a checksum of all.
    """
    rows = [_row(sample) for sample in samples]
    metadata = {"edit_types": json.dumps(edit_types), "sha256": _checksum(rows, edit_types)}
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata(metadata))
    parquet = io.BytesIO()
    pq.write_table(table, parquet)
    return parquet.getvalue()


def read_samples(path: Path) -> tuple[list[Sample], tuple[str, ...]]:
    """Exactly the samples that were written, and the data set's edit types in their order.

    Raises ``DataError`` if the file is missing or altered.
    """
    try:
        # A ParquetFile, because read_table takes folders called "a=b" on the way for columns.
        with pq.ParquetFile(path) as file:
            table = file.read()
        metadata = table.schema.metadata or {}
        rows = table.cast(SCHEMA).to_pylist()
        edit_types = json.loads(metadata.get(b"edit_types", b"null"))
        if metadata.get(b"sha256") != _checksum(rows, edit_types).encode():
            raise ValueError("its checksum is wrong")
        if not all(isinstance(label, str) and not label_problem(label) for label in edit_types):
            raise ValueError("its edit types are none that tables can show")
        samples = [_sample(row) for row in rows]
        if bad := next((s for s in samples if not is_sound(s, edit_types)), None):
            raise ValueError(f"sample {bad.id!r} is none that the parse stage writes")
    except (OSError, TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"The table of samples {path} cannot be read ({error}): delete it and run the parse "
            "stage again"
        ) from error
    return samples, tuple(edit_types)


def is_sound(sample: Sample, edit_types: Sequence[str]) -> bool:
    """Whether names stay inside their folders and all is there, whoever made the sample."""
    prompts = *sample.texts, sample.source_prompt, sample.target_prompt
    texts = *prompts, sample.instruction, sample.blended_word
    names = [sample.image_path, *([sample.target_image_path] if sample.target_image_path else [])]
    digests = [sample.image_digest, *([sample.target_digest] if sample.target_image_path else [])]
    masks = [mask for mask in (sample.mask, sample.annotated) if mask is not None]
    strings = (sample.id, *texts, *names, *digests, *sample.source_marked, *sample.target_marked)
    return (
        all(isinstance(text, str) for text in strings)
        and SAMPLE_ID.fullmatch(sample.id) is not None
        and all(re.fullmatch("[0-9a-f]{64}", str(digest)) for digest in digests)
        and all("\0" not in name and ".." not in Path(name).parts for name in names)
        and not any(Path(name).is_absolute() for name in names)
        and sample.edit_type in edit_types
        and all(map(_is_sound_mask, masks))
        and all(mask["size"] == masks[0]["size"] for mask in masks)
        and isinstance(sample.border, int)
        and 0 <= sample.border <= MAX_PIXELS
    )


def _is_sound_mask(mask: CocoRLE) -> bool:
    size = mask["size"]
    return (
        size is not None
        and len(size) == 2
        and None not in size
        and min(size) > 0
        and size[0] * size[1] <= MAX_PIXELS
        and isinstance(mask["counts"], str)
    )


def _row(sample: Sample) -> dict[str, Any]:
    marked = {name: list(getattr(sample, name)) for name in ("source_marked", "target_marked")}
    row = asdict(sample) | marked
    return {name: row[name] for name in SCHEMA.names}


def _sample(row: dict[str, Any]) -> Sample:
    marked = {name: tuple(row[name]) for name in ("source_marked", "target_marked")}
    return Sample(**row | marked)


def _checksum(rows: Sequence[dict[str, Any]], edit_types: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([rows, list(edit_types)]).encode()).hexdigest()
