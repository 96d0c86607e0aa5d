"""Writes all of ``results/<name>`` from stored scores: tables, figures, gallery, page.

What has not changed is not drawn again: ``report.json`` holds a digest of all that the report is
made from, and the files that were made. Publishing and printing are not done here.
"""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from piebench_masks.data.sample import SAMPLE_FIELDS, Sample
from piebench_masks.metrics.column import Column, columns_json, write_columns
from piebench_masks.provenance import provenance, union
from piebench_masks.report.chart import Figure
from piebench_masks.report.charts import figures
from piebench_masks.report.finished import Scores, result_tables, summary
from piebench_masks.report.gallery import GalleryRow, contact_sheet
from piebench_masks.report.html import Drawn, write_html
from piebench_masks.report.published import Setting, published_tables
from piebench_masks.report.samples import StoredSamples
from piebench_masks.report.table import Table
from piebench_masks.run import Run
from piebench_masks.runner import Outcome
from piebench_masks.stages.edit import edit_folder
from piebench_masks.stages.maps import map_folder
from piebench_masks.stages.score_edits import edit_columns, edit_score_folder
from piebench_masks.stages.scores import edit_scores, mask_scores, measured_costs, origins

RUNTIME = (
    *("artifacts_dir", "baseline", "batch_size", "device", "dry_run", "executor", "fail_on_error"),
    *("log", "on_error", "overwrite", "quiet", "results_dir", "stages", "sweep", "threads"),
    "tracker",
)
"""Settings of which nothing is seen in a report."""
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
        columns=edit_columns(run),
        defaults={name: method.threshold for name, method in run.methods.items()},
    )


def write_report(run: Run, samples: Sequence[Sample], computed: Outcome) -> Report:
    """Write the report, or leave it as it is where nothing of it has changed."""
    folder = run.results
    folder.mkdir(parents=True, exist_ok=True)
    scores = read_scores(run, samples)
    stored = StoredSamples(run, samples, scores)
    origin = _provenance(run, samples, computed)
    described = figures(scores.masks, scores.edits, scores.columns)
    digest = _digest(run, samples, scores, origin, computed)
    _write_record(run, computed, origin)
    earlier = _read_index(folder)
    changed = earlier.get("digest") != digest or not _all_there(folder, earlier["files"])
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
    )
    warnings = _mixed(origin["items"])
    tables = {stem: table.noted(*warnings) for stem, table in result_tables(scores).items()}
    comparisons = published_tables(
        scores.masks, scores.edits, scores.columns, scores.edited_thresholds, setting
    )
    files = [folder / name for name in ("mask_scores.parquet", "edit_scores.parquet")]
    for path, frame in zip(files, (scores.masks, scores.edits), strict=True):
        frame.to_parquet(path, index=False)
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
        provenance=_shown_provenance(origin),
        summary=summary(scores, len(samples)) + [MINIATURE] * (cfg.dataset.name == "shapes"),
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


# ---- whether anything has changed ---------------------------------------------------------------


def _digest(
    run: Run,
    samples: Sequence[Sample],
    scores: Scores,
    origin: Mapping[str, Any],
    computed: Outcome,
) -> str:
    """12 hex digits of all that a report is made from, the code that makes it included."""
    content = {
        "code": _code_digest(),
        "config": {key: value for key, value in run.plain.items() if key not in RUNTIME},
        "samples": [[sample.id, sample.fingerprint(SAMPLE_FIELDS)] for sample in samples],
        "edit_types": list(run.edit_types),
        "columns": columns_json(scores.columns),
        "defaults": scores.defaults,
        "artifacts": origin["artifacts"],
        "items": origin["items"],
        "failures": [asdict(failure) for failure in computed.failures],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    for frame in (scores.masks, scores.edits, scores.costs):
        digest.update(json.dumps(list(map(str, frame))).encode())
        digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()[:12]


@functools.cache
def _code_digest() -> str:
    digest = hashlib.sha256(version("piebench-masks").encode())
    root = Path(str(resources.files("piebench_masks.report")))
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc"):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _read_index(folder: Path) -> dict[str, Any]:
    """What ``report.json`` says; {} where it is missing or damaged."""
    try:
        index = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return index if {"tables", "comparisons", "pictures", "files"} <= index.keys() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _all_there(folder: Path, files: Mapping[str, int]) -> bool:
    """Whether every file is there in the size in which it was written."""
    try:
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except OSError:
        return False


# ---- where it comes from ------------------------------------------------------------------------


def _provenance(run: Run, samples: Sequence[Sample], computed: Outcome) -> dict[str, Any]:
    """This process, what it computed, the artifacts' keys, and as ``items`` the union of those who
    made the items.
    """
    keys = {f"maps of {name}": map_folder(run, name).key for name in run.methods}
    keys |= {f"edits of {name}": edit_folder(run, name).key for name in run.editors}
    model = "none: edits made elsewhere"
    if run.editors:
        model = f"{run.cfg.model.name} ({run.identity('model')})" if run.uses_model else "none"
    scores = {
        f"{metric} of {name}": edit_score_folder(run, name, metric).key
        for name in run.section("editor")
        for metric in run.metrics
    }
    return provenance() | {
        "device": str(run.device),
        "executor": run.section("executor"),
        "threads": torch.get_num_threads(),
        "dataset": run.cfg.dataset.name,
        "samples": len(samples),
        "model": model,
        "compat": run.cfg.compat,
        "failed items": len(computed.failures),
        "computed": dict(computed.counts),
        "artifacts": keys | scores,
        "items": union(origins(run, samples)),
    }


def _mixed(items: Mapping[str, Any]) -> list[str]:
    """A warning for each of what a table's rows should have in common and have not."""
    warnings = []
    for key in items["mixed"]:
        section, _, name = key.partition(".")
        values = items[section][name] if name else items[section]
        what = f"version of {name}" if name else section
        warnings.append(f"WARNING: more than one {what} made these rows: {', '.join(map(str, values))}.")
    return warnings


def _shown_provenance(origin: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says: of those who made the items, not of the process that reports."""
    facts = {key: origin[key] for key in ("dataset", "samples", "model", "compat", "failed items")}
    items = {key: value for key, value in origin["items"].items() if value}
    texts = {key: _joined(value) for key, value in items.items()}
    return facts | texts | {"artifacts": origin["artifacts"]}


def _joined(values: Any) -> Any:
    """Different values side by side; versions stay a mapping by package."""
    if isinstance(values, Mapping):
        return {name: _joined(entry) for name, entry in values.items()}
    if not isinstance(values, list):
        return values
    texts = (" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in values)
    return "; ".join(texts)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
