"""What Hydra calls after a sweep (``-m``). Knows of a sweep no more than its folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from piebench_masks.console import open_console, print_table, say

MARK = ".in_sweep"
"""In the folder of every run of the sweep that was last started; holds the error that ended it."""


def note_error(run: Path, error: str) -> None:
    """What ends one run of a sweep, in whatever process, leaves the others alone."""
    (run / MARK).write_text(error, encoding="utf-8")


class CollectSweep(Callback):
    """Collects the runs of a sweep; exit status 1 if a run or an item of any run failed.

    The runs may be jobs on other machines: all that they share with this process is the folder.
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        for mark in Path(config.hydra.sweep.dir).glob(f"*/{MARK}"):  # an earlier sweep's
            mark.unlink(missing_ok=True)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if config.hydra.mode is RunMode.MULTIRUN:
            Path(config.hydra.runtime.output_dir, MARK).touch()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        runs = sorted((mark.parent for mark in folder.glob(f"*/{MARK}")), key=_number)
        errors = {run: (run / MARK).read_text(encoding="utf-8") for run in runs}
        failed = collect(folder, [run for run in runs if not errors[run]], open_console(config))
        if any(errors.values()):
            sys.exit("\n".join(f"Error in run {run.name}: {e}" for run, e in errors.items() if e))
        if failed:
            sys.exit(1)


def _number(run: Path) -> tuple[int, str]:
    return int(run.name) if run.name.isdigit() else -1, run.name


def collect(folder: Path, runs: Sequence[Path], console: Console, note: str | None = None) -> int:
    """Collect these runs into a folder, print the table; how many items failed in all of them."""
    from piebench_masks.report.sweep import collect_sweep  # only sweeps pay for it

    result = collect_sweep(folder, runs, note)
    if result is None:
        return 0
    table, failed = result
    print_table(console, table.to_rich())
    place = folder / "sweep.md"
    say(console, "sweep", f"sweep: {escape(str(place))}", place=place, failed=failed)
    return failed
