"""All stages in order, as the configuration asks for them: what ``piebench-masks`` runs."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from piebench_masks.console import JsonConsole, print_table, say
from piebench_masks.data.sample import Sample
from piebench_masks.errors import BenchmarkError
from piebench_masks.parts import made
from piebench_masks.publish import report
from piebench_masks.run import Run
from piebench_masks.runner import Outcome, run_stage
from piebench_masks.settings import WRITERS, Settings
from piebench_masks.stages import STAGES, stage_of
from piebench_masks.stages.parse import parse
from piebench_masks.stages.stage import Stage
from piebench_masks.stages.written import completed
from piebench_masks.temporary import sweep_temporaries
from piebench_masks.weights import WeightsError

COUNTED = {
    "samples_parsed": "samples parsed",
    "unet_rows": "U-Net rows",
    "vae_encodes": "VAE encodes",
    "vae_decodes": "VAE decodes",
    "prompt_encodes": "prompt encodes",
}
MAKES_RESULTS = (
    *("dataset", "model", *WRITERS, "mask", "baselines", "editor", "inversion", "metrics"),
    *("compat", "strength", "num_repeat", "sample_mode", "noise_dtype", "seed"),
    *("thresholds", "limit"),
)
"""The settings that tables depend on."""
UNKNOWN = "not known yet"


def run_pipeline(cfg: Settings | DictConfig, names: Sequence[str], console: Console) -> int:
    """Run the stages of these names in their order; returns how many items failed.

    Raises BenchmarkError where the run as a whole cannot go on.
    """
    if unknown := set(names) - {"report", *STAGES}:
        raise BenchmarkError(
            f"stages: {', '.join(sorted(unknown))} unknown; there are {', '.join(STAGES)} and "
            "report"
        )
    run = Run(cfg)
    cfg = run.cfg
    if not cfg.dry_run:
        sweep_temporaries(run.artifacts.root)
    samples = parse(run, console).samples
    if cfg.dry_run:
        print_table(console, _plan(run, samples, names))
        return 0
    if "edit" in names:
        run.check_editors()
    completing = STAGES["parse"](run, samples)
    if "report" in names and not cfg.sweep and (differences := _changed_settings(run)):
        words = (
            f"{escape(str(run.results))} is of a run with other {', '.join(differences)}: this one "
        )
        words += "takes its place (name=... keeps both)"
        say(console, "replaces", words, results=run.results, settings=differences)

    started = time.monotonic()
    total = Outcome(counts=Counter(samples_parsed=run.parsed))
    with made(cfg.executor, run=run, stage_of=stage_of) as executor:

        def compute(stages: Sequence[Stage]) -> None:
            for stage in stages:
                total.add(
                    run_stage(
                        stage,
                        executor,
                        batch_size=cfg.batch_size,
                        overwrite=run.overwrite,
                        fail_on_error=cfg.fail_on_error,
                        console=console,
                    )
                )

        compute(completing)
        compute(_stages(run, samples, names))
    seconds = time.monotonic() - started
    counts = {"computed": total.items, "failed": len(total.failures)} | dict(total.counts)
    summary = None if cfg.sweep and "report" in names else _summary(total, seconds)
    say(console, "computed", summary, **counts, seconds=round(seconds, 1))
    if "report" in names:
        report(run, completed(run, samples), total, console)
    if isinstance(console, JsonConsole):
        console.event("end", name=cfg.name, results=run.results, failed=len(total.failures))
    return len(total.failures)


def _stages(run: Run, samples: Sequence[Sample], names: Sequence[str]) -> list[Stage]:
    """Those of these names but for parse, over samples that are complete by now."""
    samples = completed(run, samples)
    chosen = [make for name, make in STAGES.items() if name in names and name != "parse"]
    return [stage for make in chosen for stage in make(run, samples)]


def _plan(run: Run, samples: Sequence[Sample], names: Sequence[str]) -> Table:
    """The items that a run would compute and those that are cached, stage by stage; without the
    samples or some weights only the stages.
    """
    table = Table("Stage", "Cached", "To compute", title="Dry run: nothing is computed")
    table.caption = "A stage's work is known when those before it are done."
    try:
        if "edit" in names:
            run.check_editors()
        stages = [*STAGES["parse"](run, samples), *_stages(run, samples, names)]
        rows = list(_rows(stages, certain=bool(samples)))
    except WeightsError as error:
        chosen = [make for name, make in STAGES.items() if name in {"parse", *names}]
        rows = [(stage.name, "", UNKNOWN) for make in chosen for stage in make(run, samples)]
        table.caption = f"{str(error).splitlines()[0]} A dry run downloads nothing."
    for row in rows:
        table.add_row(*row)
    return table


def _rows(stages: Sequence[Stage], *, certain: bool) -> Iterator[tuple[str, str, str]]:
    for stage in stages:
        everything = sum(len(work.todo) for work in stage.pending(everything=True))
        missing = sum(len(work.todo) for work in stage.pending())
        words = f"{missing} {stage.item}s" if certain else f"{missing} {stage.item}s or more"
        if missing == 0 and not certain:
            words = UNKNOWN
        yield stage.name, str(everything - missing), words
        certain &= missing == 0


def _changed_settings(run: Run) -> list[str]:
    """The settings that differ from the run whose results this one replaces; [] without one."""
    try:
        previous: Any = OmegaConf.to_container(OmegaConf.load(run.results / "config.yaml"))
        current = run.plain
        return [name for name in MAKES_RESULTS if previous.get(name) != current.get(name)]
    except Exception:  # none, or one that was never finished, or damaged
        return []


def _summary(total: Outcome, seconds: float) -> str:
    if not total.items and not any(total.counts.values()):
        return "nothing to compute: all artifacts are there"
    rows = ", ".join(f"{total.counts[key]} {words}" for key, words in COUNTED.items())
    return f"{total.items} items computed in {seconds:.0f} s ({rows}), {len(total.failures)} failed"
