"""The report as a web page: one html file and its pictures in a folder, nothing from the network.

Gets finished tables, figures and gallery rows; must not know stores, stages or models.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import jinja2
from markupsafe import Markup

from piebench_masks.data.sample import EDIT_TYPES
from piebench_masks.report.gallery import LEGEND, GalleryRow, tiles
from piebench_masks.report.tables import Table


def write_html(
    folder: Path,
    title: str,
    tables: Sequence[Table],
    figures: Mapping[str, Path],
    gallery: Sequence[GalleryRow],
    provenance: Mapping[str, object],
) -> Path:
    """Write ``folder``/report.html and ``folder``/images; returns the page's path.

    ``figures`` are SVG files by caption, put into the page itself. All texts (prompts, ids, names)
    are escaped, and picture files are named by number, so no input can reach markup or paths.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    sections = []
    numbered = sorted(enumerate(gallery), key=lambda entry: entry[1].edit_type)
    for edit_type, entries in groupby(numbered, key=lambda entry: entry[1].edit_type):
        samples = [(row, _write_tiles(row, number, images)) for number, row in entries]
        sections.append((EDIT_TYPES[edit_type], samples))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("piebench_masks", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("template.html").render(
        title=title,
        tables=tables,
        figures={caption: _inline(path) for caption, path in figures.items()},
        sections=sections,
        legend=LEGEND,
        provenance=provenance,
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _inline(path: Path) -> Markup:
    """An SVG file of ours without its XML declaration, which html does not have."""
    text = path.read_text(encoding="utf-8")
    return Markup(text[text.index("<svg") :])


def _write_tiles(
    row: GalleryRow, number: int, folder: Path
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Write a row's tiles; (label, file name) of each, by group."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for place, tile in enumerate(tiles(row)):
        name = f"{number:04d}_{place:02d}.png"
        tile.image.save(folder / name)
        groups.setdefault(tile.group, []).append((tile.label, name))
    return list(groups.items())
