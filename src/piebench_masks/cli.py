"""The ``piebench-masks`` command: one configuration in, one finished or resumed run out."""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from piebench_masks.console import error_line, log_handler, open_console
from piebench_masks.errors import BenchmarkError

CONF = next(
    str(folder)
    for folder in (Path(__file__).parent / "conf", Path(__file__).parents[2] / "conf")
    if folder.is_dir()
)
"""The configuration tree: inside an installed package, or at the top of a checkout."""

Task = Callable[[DictConfig, Console], int]


def main(stages: Sequence[str] | None = None) -> None:
    """Run these stages, or those that the configuration names (all five unless told otherwise).

    ``piebench-masks audit`` runs no stage: it counts what the reference's quirks touch.
    ``piebench-masks show`` prints finished runs.
    ``piebench-masks regress`` compares the scores with a baseline's, or writes one.
    """
    other = {"audit": audit, "regress": regress, "show": show}
    if stages is None and sys.argv[1:2] and sys.argv[1] in other:
        return other[sys.argv.pop(1)]()

    def task(cfg: DictConfig, console: Console) -> int:
        if cfg.get("hparams_search"):
            from piebench_masks.search import search

            return search(cfg, console)
        from piebench_masks.pipeline import run_pipeline  # --help need not wait for torch

        sweep = HydraConfig.get().mode is RunMode.MULTIRUN
        if sweep:
            _enter_sweep(cfg)
        failed = run_pipeline(cfg, stages or cfg.stages, console)
        return 0 if sweep else failed  # of a sweep, all runs together decide the exit status

    return command(task)()


def audit() -> None:
    """Count what the reference's quirks touch."""

    def task(cfg: DictConfig, console: Console) -> int:
        from piebench_masks.audit import audit_command

        return audit_command(cfg, console)

    command(task)()


def regress() -> None:
    """Run, then compare with ``baseline=<file>`` or write one with ``baseline=update``."""

    def task(cfg: DictConfig, console: Console) -> int:
        from piebench_masks.regress import regress

        return regress(cfg, console)

    command(task)()


def show() -> None:
    """Print finished runs, whose results folders are the arguments."""
    from piebench_masks.show import show_runs

    try:
        console = Console(width=None if sys.stdout.isatty() else 160)
        show_runs([Path(argument) for argument in sys.argv[1:]], console)
    except BenchmarkError as error:
        sys.exit(f"Error: {error}")


def edit_image() -> None:
    """Edit one picture (conf/edit_image.yaml) and save the result."""

    def task(cfg: DictConfig, console: Console) -> int:
        import torch

        from piebench_masks.api import Pipeline
        from piebench_masks.run import default_device, require

        require(cfg)
        model = cfg.model
        pipeline = Pipeline.load(
            model.id,
            revision=model.revision,
            variant=model.variant,
            cache_dir=model.cache_dir,
            dtype=getattr(torch, model.dtype),
            device=cfg.device or default_device(),
            compat=cfg.compat,
        )
        edited = pipeline.edit(
            cfg.image,
            cfg.source_prompt,
            cfg.target_prompt,
            method=cfg.method,
            threshold=cfg.threshold,
            num_repeat=cfg.num_repeat,
            strength=cfg.strength,
            sample_mode=cfg.sample_mode,
            seed=cfg.seed,
        )
        edited.save(cfg.output)
        console.print(f"{cfg.output}: {edited.width}x{edited.height}", highlight=False)
        return 0

    command(task, "edit_image", log_file=False)()


def command(
    task: Task, config_name: str = "config", *, log_file: bool = True
) -> Callable[[], None]:
    """A Hydra command around ``task``, which returns how many items failed or got worse.

    Exit status: 0 all well, 1 an error or failed items, 130 interrupted. Errors that are meant for
    the user are one message; ``debug=true`` adds the traceback.
    """

    @hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)
    def run(cfg: DictConfig) -> None:
        console = open_console(cfg)
        folder = Path(HydraConfig.get().runtime.output_dir) if log_file else None
        _set_up_logging(folder, console, cfg.debug)
        try:
            failed = task(cfg, console)
        except BenchmarkError as error:
            logging.getLogger(__name__).debug("", exc_info=True)
            sys.exit(error_line(console, str(error)))
        except KeyboardInterrupt:
            console.print(
                "Interrupted. Finished items are kept; the same command goes on from here."
            )
            sys.exit(130)
        if failed:
            sys.exit(1)

    return run


def _enter_sweep(cfg: DictConfig) -> None:
    """Give this job of a sweep results of its own, and say which sweep and values they are of."""
    hydra_cfg = HydraConfig.get()
    given = OverridesParser.create().parse_overrides(list(hydra_cfg.overrides.task))
    values = {override.key_or_group: override.value() for override in given}
    name = cfg.name
    cfg.name = f"{name}/{hydra_cfg.job.num}"
    cfg.sweep = {"name": name, "values": values}


def _set_up_logging(folder: Path | None, console: Console, debug: bool) -> None:
    """A log file in ``folder``; warnings, or with ``debug`` everything, on the terminal."""
    if not debug:
        warnings.filterwarnings("ignore")
    terminal = log_handler(console)
    terminal.setLevel(logging.DEBUG if debug else logging.WARNING)
    handlers: list[logging.Handler] = [terminal]
    if folder is not None:
        file = logging.FileHandler(folder / "run.log")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.getLogger("piebench_masks").setLevel(logging.DEBUG)
