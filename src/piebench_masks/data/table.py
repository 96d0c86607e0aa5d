"""The parsed samples as one Parquet table, a row a sample. Does not know where they come from."""

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from piebench_masks.data.pie_bench import DataError
from piebench_masks.data.sample import Sample

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
    """The samples in their order as a Parquet file; masks as COCO RLE, null where there is none."""
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(sample) for sample in samples], SCHEMA), parquet)
    return parquet.getvalue()


def read_samples(path: Path) -> list[Sample]:
    """Exactly the samples that were written; ``DataError`` if the file is missing or damaged."""
    try:
        # A ParquetFile, because read_table takes folders called "a=b" on the way for columns.
        with pq.ParquetFile(path) as file:
            rows = file.read().cast(SCHEMA).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"The table of samples {path} cannot be read ({error}): delete it and run the parse "
            "stage again"
        ) from error
    return [Sample(**row) for row in rows]
