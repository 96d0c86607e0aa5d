"""The report as a folder for a browser: the page, its pictures and maps, nothing from elsewhere.

Gets finished tables, drawn figures and gallery rows; must not know stores, stages or models.

``report.html`` holds style, scripts and an index of all samples. What only a sample in view needs
lies beside it: pictures in ``images``, and in ``samples`` its maps, as scripts, because a page that
was opened from a disk may neither fetch a file nor read the pixels of a picture.
"""

import io
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from PIL import Image

from piebench_masks.data.rle import encode_runs
from piebench_masks.masks.method import CandidateBoxes
from piebench_masks.metrics.column import Column
from piebench_masks.report.gallery import GalleryRow, heat_colours
from piebench_masks.report.names import header
from piebench_masks.report.table import Table

PICTURE = 256
"""Longer side of a stored picture in pixels."""
SCRIPTS = ("maps", "look", "chart", "thresholds", "tiles", "gallery", "detail", "page")
"""The page's scripts, which are one module in this order."""


@dataclass(frozen=True)
class Sweep:
    """A mask method's scored thresholds, the chosen one's place, and that of its shown edits.

    ``dice`` is the mean over samples at each threshold, empty without annotated masks.
    """

    method: str
    thresholds: Sequence[float]
    chosen: int
    edited: float | None
    dice: Sequence[float]


@dataclass(frozen=True)
class Drawn:
    """A figure as ``svg`` for the page, and its ``files`` (names beside the page) by type."""

    title: str
    caption: str
    svg: str
    files: Mapping[str, str]
    wide: bool = False


def write_html(
    folder: Path,
    title: str,
    tables: Sequence[Table],
    comparisons: Sequence[Table],
    figures: Sequence[Drawn],
    sweeps: Sequence[Sweep],
    columns: Mapping[str, Column],
    gallery: Iterable[GalleryRow],
    provenance: Mapping[str, object],
    summary: Sequence[str] = (),
    edit_types: Sequence[str] = (),
) -> list[Path]:
    """Write ``folder``/report.html, images/ and samples/; returns the files, the page first.

    comparisons: tables that are folded up; columns: the editing metrics shown of a sample;
    edit_types: of the samples, in the data set's order; summary: sentences that stand above
    everything. The gallery is read once, a row at a time. Pictures and maps of an earlier report
    are removed. All texts (prompts, ids, names) are data to
    the page and never markup, and files are named by number, so no input can reach markup or paths.
    """
    parts = {part: folder / part for part in ("images", "samples")}
    before = {path for part in parts.values() for path in part.glob("*.*")}
    for part in parts.values():
        part.mkdir(parents=True, exist_ok=True)
    written: set[Path] = set()
    types: dict[str, int] = {label: place for place, label in enumerate(edit_types)}
    index = []
    for number, row in enumerate(gallery):
        entry = _write_sample(row, number, parts, columns, written)
        index.append(entry | {"type": types.setdefault(row.edit_type, len(types))})
    for path in before - written:
        path.unlink()
    data = {
        "types": list(types),
        "heat": b64encode(heat_colours().tobytes()).decode(),
        "methods": [
            vars(sweep) | {"dice": [_number(dice, 3) for dice in sweep.dice]} for sweep in sweeps
        ],
        "metrics": [{"label": header(c), "digits": c.digits} for c in columns.values()],
        "samples": index,
    }
    files = resources.files("piebench_masks.report").joinpath("page")
    script = "\n".join(files.joinpath(f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("piebench_masks", "report/page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["key_column"] = _key_column
    page = environment.get_template("template.html").render(
        title=title,
        summary=summary,
        tables=tables,
        comparisons=comparisons,
        figures=figures,
        samples=len(index),
        provenance=provenance,
        style=Markup(files.joinpath("page.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        data=_json(data),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return [path, *sorted(written)]


def _key_column(table: Table) -> str:
    """The column that names a row and does not scroll away: the last before the first number."""
    texts = takewhile(lambda name: table.formats[name].digits is None, table.formats)
    return [next(iter(table.formats)), *texts][-1]


def _json(data: object) -> Markup:
    """JSON that is safe inside a script element: no ``<``, no ``&``, ASCII only."""
    return htmlsafe_json_dumps(data, dumps=json.dumps, allow_nan=False, separators=(",", ":"))


def _write_sample(
    row: GalleryRow,
    number: int,
    parts: Mapping[str, Path],
    columns: Mapping[str, Column],
    written: set[Path],
) -> dict[str, Any]:
    """Write a sample's pictures and maps; its entry in the page's index. Equal pictures are one."""
    names: dict[bytes, str] = {}

    def picture(image: np.ndarray) -> str:
        pixels = image.tobytes()
        if pixels not in names:
            names[pixels] = f"{number:04d}_{len(names)}.webp"
            path = parts["images"] / names[pixels]
            path.write_bytes(_encoded(image))
            written.add(path)
        return names[pixels]

    maps = {
        method: {
            "shape": soft_map.shape,
            "values": _packed(soft_map),
            "levels": [round(float(level), 7) for level in row.levels[method]],
        }
        for method, soft_map in row.maps.items()
    }
    scores = {
        edit: [_number(values.get(name), c.digits, c.scale) for name, c in columns.items()]
        for edit, values in row.scores.items()
    }
    runs = None if row.annotated is None else encode_runs(row.annotated)
    candidates = {
        method: _boxes(boxes) | {"edit": picture(edit)}
        for method, (boxes, edit) in row.candidates.items()
    }
    path = parts["samples"] / f"{number:04d}.js"
    data = {"runs": runs, "maps": maps, "scores": scores, "candidates": candidates}
    path.write_text(f"showSample({number},{_json(data)})\n", "utf-8")
    written.add(path)
    return {
        "id": row.sample_id,
        "prompts": [row.source_prompt, row.target_prompt],
        "size": row.source.shape[:2],
        "annotated": row.annotated is not None,
        "source": picture(row.source),
        "target": None if row.target is None else picture(row.target),
        "edits": {edit: picture(image) for edit, image in row.edits.items()},
        "dice": {m: [_number(value, 3) for value in of] for m, of in row.dice.items()},
    }


def _boxes(candidates: CandidateBoxes) -> dict[str, Any]:
    """As numbers in lists: places in shares of the picture's side."""
    return {
        "points": candidates.points.double().numpy().round(4).tolist(),
        "boxes": candidates.boxes.double().numpy().round(4).tolist(),
        "values": [[_number(value, 4) for value in of] for of in candidates.values.tolist()],
        "best": candidates.best.tolist(),
        "kept": candidates.kept,
        "by": candidates.by,
    }


def _packed(soft_map: np.ndarray) -> str:
    """A map in 0..1 as base64 of little-endian uint16.

    Not 8 bits: where a map is flat near the threshold, a step of 1/255 moves the mask's edge far.
    Of 512 x 512 pixels up to 10 555 flipped in the masks of the embedded default, with 16 bits 44.
    """
    steps = np.round(np.nan_to_num(soft_map).clip(0, 1) * 65535).astype("<u2")
    return b64encode(steps.tobytes()).decode()


def _encoded(image: np.ndarray) -> bytes:
    """uint8 [H,W,3] as WebP, scaled down to ``PICTURE``; small pictures keep every pixel."""
    picture, content = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS, reducing_gap=2)
    picture.save(content, "WEBP", lossless=max(image.shape) <= PICTURE // 2, quality=80, method=2)
    return content.getvalue()


def _number(value: float | None, digits: int, scale: float = 1.0) -> float | None:
    """As it is shown; JSON knows no NaN."""
    return None if value is None or not np.isfinite(value) else round(value * scale, digits)
