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

from piebench_masks.data.images import MAX_PIXELS
from piebench_masks.data.pie_bench import SAMPLE_ID, DataError
from piebench_masks.data.sample import EDIT_TYPES, Sample

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "image_path": pa.string(),
        "source_prompt": pa.string(),
        "target_prompt": pa.string(),
        "instruction": pa.string(),
        "edit_type": pa.int32(),
        "blended_word": pa.string(),
        "mask": pa.struct({"size": pa.list_(pa.int32()), "counts": pa.string()}),
        "target_image_path": pa.string(),
        "digest": pa.string(),
    }
)


def samples_table(samples: Sequence[Sample]) -> bytes:
    """The samples in their order as a Parquet file; masks as COCO RLE, null where there is none.

    Its metadata hold a checksum of the rows.
    """
    rows = [asdict(sample) for sample in samples]
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({"sha256": _checksum(rows)}))
    parquet = io.BytesIO()
    pq.write_table(table, parquet)
    return parquet.getvalue()


def read_samples(path: Path) -> list[Sample]:
    """Exactly the samples that were written; ``DataError`` if the file is missing or altered."""
    try:
        # A ParquetFile, because read_table takes folders called "a=b" on the way for columns.
        with pq.ParquetFile(path) as file:
            table = file.read()
        rows = table.cast(SCHEMA).to_pylist()
        if (table.schema.metadata or {}).get(b"sha256") != _checksum(rows).encode():
            raise ValueError("its checksum is wrong")
        if bad := [row["id"] for row in rows if not _is_sound(row)]:
            raise ValueError(f"sample {bad[0]!r} is none that the parse stage writes")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"The table of samples {path} cannot be read ({error}): delete it and run the parse "
            "stage again"
        ) from error
    return [Sample(**row) for row in rows]


def _checksum(rows: Sequence[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _is_sound(row: dict[str, Any]) -> bool:
    """Whether names stay inside their folders and all is there, whoever wrote the table."""
    names = [row["image_path"], *([row["target_image_path"]] if row["target_image_path"] else [])]
    texts = [row[name] for name in ("source_prompt", "target_prompt", "instruction", "digest")]
    size = [1, 1] if row["mask"] is None else row["mask"]["size"]
    return (
        all(isinstance(text, str) for text in (*names, *texts, row["id"]))
        and SAMPLE_ID.fullmatch(row["id"]) is not None
        and re.fullmatch("[0-9a-f]{64}", row["digest"]) is not None
        and all("\0" not in name and ".." not in Path(name).parts for name in names)
        and not any(Path(name).is_absolute() for name in names)
        and row["edit_type"] in range(len(EDIT_TYPES))
        and size is not None
        and len(size) == 2
        and None not in size
        and min(size) > 0
        and size[0] * size[1] <= MAX_PIXELS
        and (row["mask"] is None or isinstance(row["mask"]["counts"], str))
    )
