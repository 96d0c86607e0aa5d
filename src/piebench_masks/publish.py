"""Publishes a finished report to the run's tracker, and says on the terminal what it found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from piebench_masks.console import print_table, say
from piebench_masks.data.sample import SAMPLE_FIELDS, Sample
from piebench_masks.parts import made
from piebench_masks.report.methods import learned_methods
from piebench_masks.report.write import Report, write_report
from piebench_masks.run import Run
from piebench_masks.runner import Outcome
from piebench_masks.stages.parse import parsed_folder
from piebench_masks.store import artifact_key
from piebench_masks.tracking.finished import native_plots, result_files, summary_metrics
from piebench_masks.tracking.tracker import Dataset, FinishedRun


def report(run: Run, samples: Sequence[Sample], computed: Outcome, console: Console) -> None:
    """Write all of ``results/<name>`` from the stored scores, publish it, and say where it is."""
    written = write_report(run, samples, computed)
    place = publish(run, samples, written)
    say_results(run, written, place, console)
    if computed.failures:
        failures = run.results / "failures.jsonl"
        console.print(f"[red]{len(computed.failures)} items failed[/]: {failures}")


def publish(run: Run, samples: Sequence[Sample], written: Report) -> str | None:
    """Hand the run to its tracker; where it can be seen, None where it was not published."""
    cfg, origin = run.cfg, written.provenance
    tables = {**written.comparisons, **written.tables}
    frames = {stem: table.frame for stem, table in tables.items()}
    contents = artifact_key({"samples": sorted(s.fingerprint(SAMPLE_FIELDS) for s in samples)})
    finished = FinishedRun(
        key=artifact_key({"name": cfg.name, "artifacts": origin["artifacts"]}),
        folder=written.folder,
        name=cfg.name,
        group=cfg.sweep.name if cfg.sweep else cfg.dataset.name,
        tags=[cfg.dataset.name, cfg.model.name, cfg.compat],
        config={
            "config": run.plain,
            "versions": origin["versions"],
            "artifacts": origin["artifacts"],
        },
        commit=origin["commit"],
        dataset=Dataset(
            cfg.dataset.name, contents, len(samples), parsed_folder(run).path / "samples.parquet"
        ),
        summary=summary_metrics(frames, written.columns),
        tables=frames,
        plots=native_plots(written.figures),
        samples=written.gallery,
        figures=written.pictures,
        files=result_files(written.folder),
    )
    place: str | None = made(cfg.tracker).publish(finished)
    return place


def say_results(run: Run, written: Report, tracker: str | None, console: Console) -> None:
    """All tables and where the report lies; a run of a sweep, which has its own, is one line."""
    if run.cfg.sweep:
        _say_sweep_run(run, run.cfg.sweep.values, written, console)
    else:
        _print_tables(written, console)
    places: Mapping[str, Path | str | None] = {
        "report": written.page,
        "tables": written.folder / "tables",
        **written.pictures,
        "tracker": tracker,
    }
    for what, place in places.items():
        if place is not None:
            shown = what in ("report", "tracker") and not run.cfg.sweep
            line = f"{what}: {escape(str(place))}" if shown else None
            say(console, "written", line, what=what, place=place)


def _print_tables(written: Report, console: Console) -> None:
    comparisons = written.comparisons
    void = sorted(s for s, table in comparisons.items() if table.frame["difference"].isna().all())
    if void:
        words = "Not comparable with the published numbers: the report says why"
        say(console, "void", words, tables=void)
    for stem, table in {**comparisons, **written.tables}.items():
        if stem not in void:
            print_table(console, table.to_rich(), table.secondary)


def _say_sweep_run(run: Run, values: Mapping[str, Any], written: Report, console: Console) -> None:
    """values: the settings that this run of the sweep has of its own."""
    dice = {}
    if "mask_methods" in written.tables:
        scored = written.tables["mask_methods"].frame.set_index("method")["dice"]
        dice = {method: float(scored[method]) for method in learned_methods(scored.index)}
    settings = ", ".join(f"{key}={value}" for key, value in values.items())
    scores = ", ".join(f"{method} {value:.3f}" for method, value in dice.items())
    words = f"{run.cfg.name}: {settings}{f'; Dice {scores}' if scores else ''}"
    say(console, "run", escape(words), name=run.cfg.name, values=values, dice=dice)
