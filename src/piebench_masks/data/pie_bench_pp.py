"""PIE-Bench++ (Huang et al., NeurIPS 2024) from the Parquet files of its Hugging Face repository.

Its prompts are revised ones: a data set of its own. Knows files; knows no model and no store.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from piebench_masks.data.entries import SAMPLE_ID
from piebench_masks.data.parsed import DataError
from piebench_masks.data.pie_bench import BY_ID
from piebench_masks.data.whole import whole_folder

COLUMNS = ("id", "image", "source_prompt", "target_prompt", "blended_words", "mask")
"""What is read; ``edit_action`` and ``aspect_mapping`` stand beside it."""


def unpack_pie_bench_pp(root: Path, *, source: Path | str) -> None:
    """Write ``root`` in PIE-Bench's folder form, which ``load_pie_bench`` checks and reads.

    source: a download of ``UB-CVML-Group/PIE_Bench_pp``: one folder per configuration,
    ``0_random_140`` to ``9_change_style_80`` (the first digit is the edit type), each with
    ``V1-*.parquet``. Images keep their bytes; a ``mask`` is a text of starts and lengths.
    Raises ``DataError`` where the files are not there or not of that form.
    """
    files = sorted(Path(source).glob("[0-9]_*/V1-*.parquet"))
    type_ids = {file.parent.name[0] for file in files}
    if missing := BY_ID.keys() - type_ids:
        raise DataError(
            f"{source} lacks V1-*.parquet of the configurations {', '.join(sorted(missing))}_*: "
            "download all of the dataset UB-CVML-Group/PIE_Bench_pp there (huggingface-cli "
            "download --repo-type dataset), or set dataset.source to where it is"
        )
    with whole_folder(root) as folder:
        images = folder / "annotation_images"
        entries = [entry for file in files for entry in _unpack(file, images)]
        # Not through a dict: an id that is given twice is for the loader to find.
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries)
        (folder / "mapping_file.json").write_text(f"{{{lines}}}", encoding="utf-8")


def _unpack(file: Path, images: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        with pq.ParquetFile(file) as parquet:
            rows = parquet.read(columns=list(COLUMNS)).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read ({error}): download it again") from error
    if not rows or not rows[0].keys() >= set(COLUMNS):
        raise DataError(f"{file} lacks some of the columns {', '.join(COLUMNS)}: download it again")
    folder = file.parent.name
    (images / folder).mkdir(parents=True, exist_ok=True)
    entries = []
    for number, row in enumerate(rows):
        # The loader rejects odd ids; here they must not become paths. Formats are told by content.
        name = row["id"] if SAMPLE_ID.fullmatch(str(row["id"])) else f"row-{number}"
        path = f"{folder}/{name}.jpg"
        picture = row["image"].get("bytes") if isinstance(row["image"], dict) else None
        if isinstance(picture, bytes):
            (images / path).write_bytes(picture)
        entry = {
            "image_path": path,
            "original_prompt": row["source_prompt"],
            "editing_prompt": row["target_prompt"],
            "editing_instruction": "",
            "editing_type_id": folder[0],
            "blended_word": row["blended_words"] or "",
            "mask": _runs(row["mask"]),
        }
        entries.append((str(row["id"]), entry))
    return entries


def _runs(text: Any) -> Any:
    """The numbers of a mask's text; another text stays what it is, for the loader to reject."""
    try:
        return [int(number) for number in text.replace(",", " ").strip("[] ").split()]
    except (AttributeError, ValueError):
        return "no numbers"
