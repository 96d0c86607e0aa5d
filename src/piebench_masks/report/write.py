"""Writes all of ``results/<name>`` from stored scores: tables, figures, gallery, page.

What has not changed is not drawn again: ``report.json`` holds a digest of all that the report is
made from, and the files that were made. Publishing and printing are not done here.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from piebench_masks.data.sample import Sample
from piebench_masks.metrics.column import Column, write_columns
from piebench_masks.report.chart import Figure
from piebench_masks.report.charts import figures
from piebench_masks.report.finished import Scores, result_tables, summary
from piebench_masks.report.gallery import GalleryRow, contact_sheet
from piebench_masks.report.html import Drawn, write_html
from piebench_masks.report.origin import mixed_notes, run_provenance, shown_provenance
from piebench_masks.report.protocol_tables import ProtocolScores
from piebench_masks.report.published import Setting, published_tables
from piebench_masks.report.samples import StoredSamples
from piebench_masks.report.table import Table
from piebench_masks.report.unchanged import all_there, read_index, report_digest
from piebench_masks.run import Run
from piebench_masks.runner import Outcome
from piebench_masks.stages.score_edits import protocol_columns
from piebench_masks.stages.scores import (
    edit_scores,
    editor_levels,
    editor_masking,
    mask_scores,
    measured_costs,
    measured_map_costs,
)

WRITTEN = {
    "captions": "Masks and editors are shown captions of the pictures in the place of source "
    "prompts. Scores rest on the data set's own.",
    "concepts": "DiffEdit is shown the mean of captions about what is exchanged in the place of "
    "prompts. Scores rest on the data set's own.",
}
MINIATURE = (
    "These numbers rank nothing but this miniature: which method wins on shapes follows from how "
    "its small model was trained, and says nothing about other models."
)


@dataclass(frozen=True)
class Report:
    """What was written to ``folder``, for those who publish and print it.

    tables, comparisons (with published numbers) and pictures are by file name; ``gallery`` reads
    the rows of gallery.png; ``changed``: whether anything was drawn anew.
    """

    folder: Path
    tables: Mapping[str, Table]
    comparisons: Mapping[str, Table]
    columns: Mapping[str, Column]
    figures: Mapping[str, Figure]
    pictures: Mapping[str, Path]
    provenance: Mapping[str, Any]
    gallery: Callable[[], Sequence[GalleryRow]]
    changed: bool

    @property
    def page(self) -> Path:
        return self.folder / "report.html"


def read_scores(run: Run, samples: Sequence[Sample]) -> Scores:
    """All stored scores of a run."""
    edits = edit_scores(run, samples)
    return Scores(
        masks=mask_scores(run, samples),
        edits=edits,
        costs=measured_costs(run, samples, edits),
        map_costs=measured_map_costs(run, samples),
        columns=protocol_columns(run, run.protocol),
        defaults={name: method.threshold for name, method in run.methods.items()},
        knows={name: method.knows for name, method in run.methods.items()},
        told=editor_levels(run),
        masking=editor_masking(run),
        protocol=_protocol_label(run),
        protocols={
            name: ProtocolScores(
                run.protocol_digest(name),
                edits if name == run.protocol else edit_scores(run, samples, name),
                protocol_columns(run, name),
            )
            for name in run.protocols
        },
    )


def _protocol_label(run: Run) -> str:
    """Name, digest and unusual switches of the protocol that the tables are of."""
    digest, unusual = run.protocol_digest(run.protocol), run.protocols[run.protocol].unusual
    return f"{run.protocol} ({digest}{f'; {unusual}' if unusual else ''})"


def write_report(run: Run, samples: Sequence[Sample], computed: Outcome) -> Report:
    """Write the report, or leave it as it is where nothing of it has changed."""
    folder = run.results
    folder.mkdir(parents=True, exist_ok=True)
    scores = read_scores(run, samples)
    stored = StoredSamples(run, samples, scores)
    origin = run_provenance(run, samples, computed)
    described = figures(
        scores.masks, scores.edits, scores.columns, scores.gains, scores.knows, scores.protocol
    )
    digest = report_digest(run, samples, scores, origin, computed)
    _write_record(run, computed, origin)
    earlier = read_index(folder)
    changed = earlier.get("digest") != digest or not all_there(folder, earlier["files"])
    if changed:
        index = _draw(run, samples, scores, stored, origin, described)
        for name in set(earlier.get("files", ())) - set(index["files"]):
            (folder / name).unlink(missing_ok=True)
        _write(folder / "report.json", json.dumps({"digest": digest, **index}, indent=1))
        earlier = index
    tables = {
        part: {stem: Table.read(folder / "tables" / f"{stem}.json") for stem in earlier[part]}
        for part in ("tables", "comparisons")
    }
    return Report(
        folder,
        tables["tables"],
        tables["comparisons"],
        scores.columns,
        described,
        {stem: folder / name for stem, name in earlier["pictures"].items()},
        origin,
        stored.picked,
        changed,
    )


def _draw(
    run: Run,
    samples: Sequence[Sample],
    scores: Scores,
    stored: StoredSamples,
    origin: Mapping[str, Any],
    described: Mapping[str, Figure],
) -> dict[str, Any]:
    """Write everything; what ``report.json`` says of it."""
    folder, cfg = run.results, run.cfg
    setting = Setting(
        cfg.dataset.name,
        cfg.model.name if run.editors else None,
        Counter(sample.edit_type for sample in samples),
        cfg.compat,
        run.protocols[run.protocol].unusual,
    )
    warnings = mixed_notes(origin["items"])
    tables = {stem: table.noted(*warnings) for stem, table in result_tables(scores).items()}
    comparisons = published_tables(
        scores.masks, scores.edits, scores.columns, scores.edited_thresholds, setting
    )
    files = [folder / name for name in ("mask_scores.parquet", "edit_scores.parquet")]
    for path, frame in zip(files, (scores.masks, scores.edits), strict=True):
        frame.to_parquet(path, index=False)
    if len(scores.protocols) > 1:
        files.append(folder / "protocol_scores.parquet")
        frames = [protocol.edits for protocol in scores.protocols.values()]
        pd.concat(frames, ignore_index=True).to_parquet(files[-1], index=False)
    files.append(folder / "columns.json")
    write_columns(files[-1], scores.columns)
    for stem, table in (comparisons | tables).items():
        files += table.write(folder / "tables", stem)
    drawn = _draw_figures(folder, described)
    pictures = {stem: figure.files["png"] for stem, figure in drawn.items()}
    files += [folder / name for figure in drawn.values() for name in figure.files.values()]
    if picked := stored.picked():
        pictures["gallery"] = "gallery.png"
        contact_sheet(picked).save(folder / "gallery.png")
        files.append(folder / "gallery.png")
    files += write_html(
        folder,
        f"Masks of {cfg.model.name} on {cfg.dataset.name}"
        if run.editors
        else f"Edits made elsewhere, on {cfg.dataset.name}",
        tables=list(tables.values())[::-1],  # a page is read from its top, a terminal from its end
        comparisons=list(comparisons.values()),
        figures=list(drawn.values()),
        sweeps=stored.sweeps(),
        columns=stored.columns(),
        gallery=stored.all(),
        provenance=shown_provenance(origin),
        summary=summary(scores, len(samples))
        + [WRITTEN[writer] for writer in run.writers]
        + [MINIATURE] * (cfg.dataset.name == "shapes"),
        edit_types=run.edit_types,
    )
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    listed = {"tables": list(tables), "comparisons": list(comparisons), "pictures": pictures}
    return {**listed, "files": sizes}


def _draw_figures(folder: Path, described: Mapping[str, Figure]) -> dict[str, Drawn]:
    from piebench_masks.report import draw, inline  # the drawing library takes a second to load

    drawn = {}
    for stem, figure in described.items():
        canvas = draw.draw(figure)
        files = {path.suffix[1:]: path.name for path in draw.save(canvas, folder, stem)}
        svg = inline.inlined(draw.svg(canvas), figure, stem, draw.PAGE_COLOURS)
        drawn[stem] = Drawn(figure.title, figure.caption, svg, files, wide=len(figure.charts) > 1)
    return drawn


def _write_record(run: Run, computed: Outcome, origin: Mapping[str, Any]) -> None:
    """What this process was asked for, did and failed at, whether or not its results are new."""
    lines = [json.dumps(asdict(failure)) for failure in computed.failures]
    _write(run.results / "failures.jsonl", "".join(f"{line}\n" for line in lines))
    _write(run.results / "config.yaml", run.cfg.yaml())
    _write(run.results / "provenance.json", json.dumps(origin, indent=2))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
