"""The ``piebench-masks`` command: one configuration in, one finished or resumed run out."""

import atexit
import difflib
import functools
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from piebench_masks.console import (
    error_line,
    log_handler,
    open_console,
    set_up_logging,
    terminal_width,
)
from piebench_masks.errors import BenchmarkError
from piebench_masks.item_settings import ITEM_COMMANDS
from piebench_masks.pnp_inversion import METHODS, methods, store_methods
from piebench_masks.settings import EditImageSettings, Settings, typed, typed_as, typed_edit
from piebench_masks.settings_page import CONF, help_text, options
from piebench_masks.sweep import note_error

log = logging.getLogger(__name__)


def output_folder(folder: str, dry_run: object) -> str:
    """Where Hydra and the log file write: in a dry run a temporary folder."""
    return _temporary_folder() if dry_run is True else folder


@functools.cache
def _temporary_folder() -> str:
    folder = tempfile.mkdtemp(prefix="piebench-masks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


OmegaConf.register_new_resolver("commented_settings", help_text, replace=True)
OmegaConf.register_new_resolver(
    "item_settings", lambda name: help_text(ITEM_COMMANDS[name]), replace=True
)
OmegaConf.register_new_resolver("output_folder", output_folder, replace=True)
store_methods()
Task = Callable[[DictConfig, Console], int]


def main(stages: Sequence[str] | None = None) -> None:
    """Run these stages, or those that the configuration names (all five unless told otherwise).

    ``piebench-masks audit`` runs no stage: it counts what the reference's quirks touch.
    ``piebench-masks show`` prints finished runs.
    ``piebench-masks items`` fits a model to the items of a picture, and edits them.
    ``piebench-masks regress`` compares the scores with a baseline's, or writes one.
    ``piebench-masks edit`` edits one picture.
    """
    if sys.argv[1:] == ["--version"]:
        return print(f"piebench-masks {metadata.version('piebench-masks')}")
    if stages is None and sys.argv[1:2] and sys.argv[1] in COMMANDS:
        return COMMANDS[sys.argv.pop(1)]()

    def task(cfg: DictConfig, console: Console) -> int:
        if cfg.get("hparams_search"):
            from piebench_masks.search import search

            return search(cfg, console)
        from piebench_masks.pipeline import run_pipeline  # --help need not wait for torch

        sweep = HydraConfig.get().mode is RunMode.MULTIRUN
        if sweep:
            _enter_sweep(cfg)
        settings = typed(cfg)
        _check_inversion(settings)
        failed = run_pipeline(settings, stages or settings.stages, console)
        return 0 if sweep else failed  # of a sweep, all runs together decide the exit status

    return command(task)()


def audit() -> None:
    """Count what the reference's quirks touch."""

    def task(cfg: DictConfig, console: Console) -> int:
        from piebench_masks.audit import audit_command

        return audit_command(typed(cfg), console)

    command(task)()


def regress() -> None:
    """Run, then compare with ``baseline=<file>`` or write one with ``baseline=update``."""

    def task(cfg: DictConfig, console: Console) -> int:
        from piebench_masks.regress import regress

        return regress(typed(cfg), console)

    command(task)()


def show() -> None:
    """Print finished runs, whose results folders are the arguments."""
    from piebench_masks.show import USAGE, show_runs

    if {"-h", "--help"} & set(sys.argv):
        return print(USAGE)
    try:
        show_runs([Path(argument) for argument in sys.argv[1:]], Console(width=terminal_width()))
    except BenchmarkError as error:
        sys.exit(f"Error: {error}")


SPELLINGS = {"protocols": "protocol", "against": "dataset@against"}
"""Other words for a group: the plural, and what needs not be called a data set."""


def edit_image() -> None:
    """Edit one picture (conf/edit_image.yaml) and save the result."""

    def task(composed: DictConfig, console: Console) -> int:
        from piebench_masks.api import Pipeline
        from piebench_masks.chosen import ChosenModel, default_device, only_editor, usable_device

        cfg = typed_edit(composed)
        _check_inversion(cfg)
        if Path(cfg.output).exists():
            raise BenchmarkError(
                f"{cfg.output} is there already: remove it, or choose another output=..."
            )
        device = usable_device(cfg.device or default_device())
        pipeline = Pipeline(ChosenModel(cfg.model).load(device), cfg.compat)
        scene = pipeline.scene(
            cfg.image,
            cfg.source_prompt,
            cfg.target_prompt,
            num_repeat=cfg.num_repeat,
            strength=cfg.strength,
            sample_mode=cfg.sample_mode,
            seed=cfg.seed,
        )
        edited = scene.edit(cfg.method, cfg.threshold, editor=only_editor(cfg))
        edited.save(cfg.output)
        console.print(f"{cfg.output}: {edited.width}x{edited.height}", highlight=False)
        return 0

    command(task, "edit_image", log_file=False)()


def items() -> None:
    """One of the commands for the items of a picture, named by the next word."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        lines = [f"  {(kind.__doc__ or '').replace('`', '')}" for kind in ITEM_COMMANDS.values()]
        example = "For example: piebench-masks items segment folder=my_picture 'texts=[circle]'"
        print("\n".join(["piebench-masks items COMMAND --help, with one of", *lines, example]))
        return
    if name not in ITEM_COMMANDS:
        sys.exit(f"Error: items has no command {name}: {_nearest(name, [*ITEM_COMMANDS])}")

    def task(cfg: DictConfig, console: Console) -> int:
        from piebench_masks.item_commands import run_item_command

        return run_item_command(name, typed_as(cfg, ITEM_COMMANDS[name]), console)

    sys.argv[1] = f"command={name}"
    command(task, "items", log_file=False)()


COMMANDS = {
    "audit": audit,
    "regress": regress,
    "show": show,
    "edit": edit_image,
    "items": items,
}
"""The commands of ``piebench-masks`` that are no stages."""


def command(
    task: Task, config_name: str = "config", *, log_file: bool = True
) -> Callable[[], None]:
    """A Hydra command around ``task``, which returns how many items failed or got worse.

    Exit status: 0 all well, 1 an error or failed items, 130 interrupted (143 by SIGTERM).
    Errors that are meant for the user are one message; ``debug=true`` adds the traceback.
    """

    @hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)
    def run(cfg: DictConfig) -> None:
        if cfg.get("dry_run") is True:
            os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's client reads it when it is imported
        console = open_console(cfg)
        folder = Path(HydraConfig.get().runtime.output_dir) if log_file else None
        _set_up_logging(folder, console, cfg.debug)
        try:
            failed = task(cfg, console)
        except KeyboardInterrupt as interruption:
            console.print(
                "Interrupted. What was saved is kept; the same command goes on from there."
            )
            sys.exit(128 + (interruption.args or (signal.SIGINT,))[0])
        except Exception as error:
            log.debug("", exc_info=True)
            if folder is not None and HydraConfig.get().mode is RunMode.MULTIRUN:
                note_error(folder, explained(error))  # the sweep's other runs go on
                return
            sys.exit(error_line(console, explained(error)))
        if failed:
            sys.exit(1)

    def explaining() -> None:
        # Hydra gives its errors to us instead of printing them.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        for spelling, group in SPELLINGS.items():
            sys.argv[1:] = [re.sub(f"^{spelling}=", f"{group}=", word) for word in sys.argv[1:]]
        for word in sys.argv[1:]:
            if setting := _as_setting(word, config_name):
                sys.exit(f"Error: {word} is no option: settings have no dashes, as in {setting}")
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            run()
        except Exception as error:
            if "debug=true" in sys.argv:
                traceback.print_exc()
            sys.exit(f"Error: {explained(error, config_name)}")

    return explaining


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def explained(error: Exception, config_name: str = "config") -> str:
    """One message for the user: what is wrong and what to do about it."""
    if isinstance(error, BenchmarkError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        names = [*methods()] if group == METHODS else [path.stem for path in options(group)]
        return f"{group} has no option {name}: {_nearest(name, names, '--help')}"
    if isinstance(error, OverrideParseException):
        if "=" not in error.override:
            return (
                f"{error.override!r} is neither a setting, name=value, nor a command: there are "
                f"{', '.join(COMMANDS)}; --help says more"
            )
        return (
            f"{error.override!r} cannot be read as name=value: quote what the shell or Hydra "
            "would take apart, as in 'thresholds=[0.3,0.5]' or 'name=\"a b\"'"
        )
    if override := re.match(
        r"Could not (?:override|append|delete from config).*?'(.+?)'", str(error)
    ):
        name, names = override[1], _settings(config_name)
        if name in names:
            return f"{name} is a setting already: change it with {name}=value, without the sign"
        if choices := _options_with(name):
            chosen = " or ".join(choices)
            return f"{name} is a setting of {chosen}, which is not chosen: add {choices[0]}"
        return f"{name} is no setting: {_nearest(name, names)}"
    if isinstance(error, RuntimeError) and '"srun"' in str(error):  # submitit's words
        return "there is no Slurm here (no srun): hydra/launcher=submitit_local needs none"
    if isinstance(error, HydraException | OmegaConfBaseException | OSError):
        message = f"{error} {error.__cause__ or ''}".split("Config search path:")[0]
        return f"{' '.join(message.split())}: correct that setting, or its place"
    return (
        f"{type(error).__name__}: {' '.join(str(error).split())}. This is unexpected; "
        "debug=true shows where it comes from"
    )


def _nearest(name: str, names: Sequence[str], listing: str = "--cfg job") -> str:
    matches = difflib.get_close_matches(name, names, 3, 0.5)
    if matches:
        return f"did you mean {' or '.join(matches)}?"
    if name.startswith("hydra."):
        return "--cfg hydra lists Hydra's own"
    return f"choose one of {', '.join(names)}" if len(names) < 20 else f"{listing} lists them all"


def _as_setting(option: str, config_name: str) -> str:
    """``dry_run=true`` for ``--dry-run``; empty for what is no setting's name behind dashes."""
    name, _, value = option.partition("=")
    name = name.removeprefix("--").replace("-", "_")
    if not option.startswith("--") or name not in (defaults := _defaults(config_name)):
        return ""
    return f"{name}={value or ('true' if isinstance(defaults[name], bool) else 'value')}"


def _settings(config_name: str) -> list[str]:
    """The dotted names of all settings."""
    return list(_names(_defaults(config_name)))


def _defaults(config_name: str) -> Any:
    """All settings as plain values."""
    overrides = [word for word in sys.argv[1:2] if word.startswith("command=")]
    with initialize_config_dir(CONF, version_base="1.3"):
        return OmegaConf.to_container(compose(config_name, overrides=overrides))


def _options_with(name: str) -> list[str]:
    """The options of the setting's group that have it, as they are chosen: ``editor=[chord]``."""
    group = name.partition(".")[0]
    found = []
    for path in options(group):
        node = OmegaConf.to_container(OmegaConf.load(path))
        if name in _names(node, f"{group}."):
            named = isinstance(node, dict) and path.stem in node
            found.append(f"{group}=[{path.stem}]" if named else f"{group}={path.stem}")
    return found


def _names(node: object, start: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{start}{key}"
            yield from _names(value, f"{start}{key}.")


def _check_inversion(settings: Settings | EditImageSettings) -> None:
    """Raise BenchmarkError for an inversion that was asked for and that no editor takes."""
    words = HydraConfig.get().overrides.task
    asked = [word for word in words if re.match(r"\+*inversion\b", word)]
    if asked and not any(settings.inversion in node.values() for node in settings.editor.values()):
        raise BenchmarkError(
            f"{asked[0]} changes nothing: no chosen editor takes ${{inversion}}; choose one that "
            "does, as in editor=[prompt_to_prompt], or leave it out"
        )


def _enter_sweep(cfg: DictConfig) -> None:
    """Give this job of a sweep a results folder, and record the sweep's name and values."""
    hydra_cfg = HydraConfig.get()
    overrides = OverridesParser.create().parse_overrides(list(hydra_cfg.overrides.task))
    values = {override.key_or_group: override.value() for override in overrides}
    name = cfg.name
    cfg.name = f"{name}/{hydra_cfg.job.num}"
    cfg.sweep = {"name": name, "values": values}


def _set_up_logging(folder: Path | None, console: Console, debug: bool) -> None:
    """A log file in ``folder``; warnings, or with ``debug`` everything, on the terminal."""
    handlers = [log_handler(console, debug)]
    if folder is not None:
        file = logging.FileHandler(folder / "run.log")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    set_up_logging(handlers)
