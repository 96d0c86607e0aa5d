"""Publishes a finished report to the run's tracker, and prints its results on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from piebench_masks.console import print_table, say
from piebench_masks.data.sample import SAMPLE_FIELDS, Sample
from piebench_masks.parts import made
from piebench_masks.report.methods import learned_methods
from piebench_masks.report.results import for_terminal
from piebench_masks.report.write import Report, write_report
from piebench_masks.run import Run
from piebench_masks.runner import Outcome
from piebench_masks.stages.parse import parsed_folder
from piebench_masks.store import artifact_key
from piebench_masks.tracking.finished import native_plots, result_files, summary_metrics
from piebench_masks.tracking.tracker import Dataset, FinishedRun


def report(run: Run, samples: Sequence[Sample], computed: Outcome, console: Console) -> None:
    """Write ``results/<name>`` from the stored scores, publish it, and print its path."""
    results = write_report(run, samples, computed)
    place = publish(run, samples, results)
    say_results(run, results, place, console)
    if computed.failures:
        failures = run.results / "failures.jsonl"
        console.print(f"[red]{len(computed.failures)} items failed[/]: {failures}")


def publish(run: Run, samples: Sequence[Sample], results: Report) -> str | None:
    """Hand the run to its tracker; returns its address there, None where it was not published."""
    cfg, origin = run.cfg, results.provenance
    tables = {**results.comparisons, **results.tables}
    frames = {stem: table.frame for stem, table in tables.items()}
    contents = artifact_key({"samples": sorted(s.fingerprint(SAMPLE_FIELDS) for s in samples)})
    finished = FinishedRun(
        key=artifact_key({"name": cfg.name, "artifacts": origin["artifacts"]}),
        folder=results.folder,
        name=cfg.name,
        group=cfg.sweep.name if cfg.sweep else cfg.dataset.name,
        tags=[cfg.dataset.name, cfg.model.name, cfg.compat, run.protocol],
        config={
            "config": run.plain,
            "protocol": origin["protocol"],
            "versions": origin["versions"],
            "artifacts": origin["artifacts"],
        },
        commit=origin["commit"],
        dataset=Dataset(
            cfg.dataset.name, contents, len(samples), parsed_folder(run).path / "samples.parquet"
        ),
        summary=summary_metrics(frames, results.columns),
        tables=frames,
        plots=native_plots(results.figures),
        samples=results.gallery,
        figures=results.pictures,
        files=result_files(results.folder),
    )
    place: str | None = made(cfg.tracker).publish(finished)
    return place


def say_results(run: Run, results: Report, tracker: str | None, console: Console) -> None:
    """Print the tables that matter most and the report's path; a run of a sweep is one line."""
    if run.cfg.sweep:
        _say_sweep_run(run, run.cfg.sweep.values, results, console)
    else:
        _print_tables(results, console)
    places: Mapping[str, Path | str | None] = {
        "report": results.page,
        "tables": results.folder / "tables",
        **results.pictures,
        "tracker": tracker,
    }
    for what, place in places.items():
        if place is not None:
            has_line = what in ("report", "tracker") and not run.cfg.sweep
            line = f"{what}: {escape(str(place))}" if has_line else None
            say(console, "written", line, what=what, place=place)


def _print_tables(results: Report, console: Console) -> None:
    comparisons = results.comparisons
    void = sorted(s for s, table in comparisons.items() if table.frame["difference"].isna().all())
    if void:
        words = "Not comparable with the published numbers: the report says why"
        say(console, "void", words, tables=void)
    shown = [table for stem, table in comparisons.items() if stem not in void]
    for table in (*shown, *for_terminal(results.tables)):
        print_table(console, table.to_rich(), table.secondary)


def _say_sweep_run(run: Run, values: Mapping[str, Any], results: Report, console: Console) -> None:
    """values: the settings that the sweep varies."""
    dice = {}
    if "mask_methods" in results.tables:
        dice_scores = results.tables["mask_methods"].frame.set_index("method")["dice"]
        dice = {method: float(dice_scores[method]) for method in learned_methods(dice_scores.index)}
    settings = ", ".join(f"{key}={value}" for key, value in values.items())
    scores = ", ".join(f"{method} {value:.3f}" for method, value in dice.items())
    words = f"{run.cfg.name}: {settings}{f'; Dice {scores}' if scores else ''}"
    say(console, "run", escape(words), name=run.cfg.name, values=values, dice=dice)
