"""What every setting may be, checked before anything is run.

Knows the configuration alone; what a part makes of its settings is the part's own affair.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from piebench_masks.diffusion.ddpm import start_timestep
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import BASELINES
from piebench_masks.store import Overwrite

UNMASKED = "none"
"""The tables' name of the edit without a mask."""
EXTERNAL = "external"
"""The name under ``editor`` of edits made elsewhere."""


def check_part(node: DictConfig, **arguments: Any) -> None:
    """Raise BenchmarkError unless ``node`` names something that takes its settings and these.

    A part that is ``_partial_`` may leave arguments out.
    """
    name = node._get_full_key(None)
    try:
        signature = inspect.signature(get_object(str(node["_target_"])))
        bind = signature.bind_partial if node.get("_partial_") else signature.bind
        bind(**_own(node) | arguments)
    except Exception as error:  # importing runs whatever is there
        raise BenchmarkError(
            f"{name} does not describe a part of the benchmark ({one_line(error)}): choose one of "
            f"the options in conf/{name.split('.')[0]}/, or set {name}._target_ to an import path "
            "and beside it only what that takes"
        ) from error


def check_typed_part(node: DictConfig) -> None:
    """As ``check_part``, and values must be of the types that the target's arguments have.

    So too of the parts that it is made of.
    """
    check_part(node)
    target = get_object(str(node["_target_"]))
    try:
        types = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # imported for type checkers only
        types = {}
    for key, value in _own(node).items():
        name = f"{node._get_full_key(None)}.{key}"
        if isinstance(value, DictConfig) and "_target_" in value:
            check_typed_part(value)
        else:
            plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            _check(name, plain, {name: _suits(types.get(key))})


def _own(node: DictConfig) -> dict[str, Any]:
    return {str(key): node[key] for key in node if key not in ("_target_", "_partial_")}


def require(cfg: DictConfig) -> None:
    """Raise BenchmarkError for values that the user must give and has not given."""
    _resolved(cfg)
    if missing := OmegaConf.missing_keys(cfg):
        names = " and ".join(sorted(missing))
        raise BenchmarkError(f"{names} must be set, for example {min(missing)}=/path/to/it")


Rule = tuple[Callable[[Any], bool], str]
"""Whether a setting's value can be worked with, and what can be."""


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def is_whole(value: Any, low: int = 1, high: int = 2**31) -> bool:
    return type(value) is int and low <= value <= high


def is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and value.strip() != ""


def is_list(value: Any, of: Callable[[Any], bool], least: int = 0) -> bool:
    """A list of different values."""
    return (
        isinstance(value, list)
        and len(value) >= least
        and all(map(of, value))
        and len(set(value)) == len(value)
    )


def _one_of(*choices: str) -> Rule:
    return (lambda value: isinstance(value, str) and value in choices), (
        f"choose one of {', '.join(choices)}"
    )


def _or_null(rule: Rule) -> Rule:
    return (lambda value: value is None or rule[0](value)), f"{rule[1]}, or null"


def _is_device(value: Any) -> bool:
    return is_whole(value, 0) or is_text(value)


def _is_space(value: Any) -> bool:
    if isinstance(value, dict):
        ends: list[Any] = [value.get("low"), value.get("high")]
        return len(value) == 2 and all(map(is_number, ends)) and ends == sorted(set(ends))
    return isinstance(value, list) and len(value) > 0 and not any(map(_is_nested, value))


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | dict)


def _is_relative(value: Any) -> bool:
    return is_text(value) and not Path(value).is_absolute() and ".." not in Path(value).parts


COUNT: Rule = is_whole, "it must be a whole number from 1 up"
FEW: Rule = (lambda value: is_whole(value, 1, 1000)), "it must be a whole number from 1 to 1000"
NUMBER: Rule = is_number, "it must be a finite number"
TEXT: Rule = is_text, "it must be a text without control characters"
FLAG: Rule = (lambda value: isinstance(value, bool)), "it must be true or false"
SEED: Rule = (lambda value: is_whole(value, 0, 2**62)), "it must be a whole number from 0 to 2^62"
PRECISION = _one_of("float32", "float16", "bfloat16")
KNOWN_BASELINES = tuple(BASELINES)
SECTION: Rule = (lambda value: isinstance(value, dict)), "it must be a section of settings"


def _suits(hint: Any) -> Rule:
    """Which values a type allows; all, where it is none of a plain value."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        words = f"choose one of {', '.join(map(str, choices))}"
        return (lambda value: (type(value), value) in [(type(c), c) for c in choices]), words
    if get_origin(hint) in (Union, UnionType):
        rules = [_suits(option) for option in get_args(hint)]
        words = ", or ".join(wanted for _, wanted in rules)
        return (lambda value: any(holds(value) for holds, _ in rules)), words
    plain = {int: SEED, float: NUMBER, bool: FLAG, str: TEXT, NoneType: _NULL}
    return plain.get(hint, _ANYTHING)


_NULL: Rule = (lambda value: value is None), "null"
_ANYTHING: Rule = (lambda value: True), "anything"

SETTINGS: dict[str, Rule] = {
    "stages": (lambda value: is_list(value, is_text, 1), "it must be a list of different stages"),
    "baselines": (
        lambda value: is_list(value, lambda name: name in KNOWN_BASELINES),
        f"choose different ones of {', '.join(KNOWN_BASELINES)}",
    ),
    "compat": _one_of("exact", "reference"),
    "strength": NUMBER,
    "num_repeat": FEW,
    "sample_mode": _one_of("argmax", "sample"),
    "noise_dtype": _one_of("float32", "float16"),
    "seed": SEED,
    "thresholds": (
        lambda value: value in ("one", "sweep") or is_whole(value) or is_list(value, is_number, 1),
        "choose one, sweep, a number of the sweep's thresholds (7) or a list ([0.3,0.5])",
    ),
    "name": (_is_relative, "it must be a folder name, inside results_dir"),
    "results_dir": TEXT,
    "artifacts_dir": TEXT,
    "data_dir": TEXT,
    "device": _or_null(TEXT),
    "devices": (
        lambda value: (
            value in (None, "auto")
            or (isinstance(value, list) and len(value) > 0 and all(map(_is_device, value)))
        ),
        "it must be a list such as [0,1] or [cpu,cpu], auto, or null",
    ),
    "threads": _or_null(FEW),
    "batch_size": COUNT,
    "limit": _or_null(COUNT),
    "on_error": _one_of("raise", "skip"),
    "fail_on_error": (
        lambda value: isinstance(value, bool) or (is_number(value) and value >= 0),
        "it must be true, false, a share (0.25) or a count",
    ),
    "overwrite": _one_of(*Overwrite),
    "baseline": _or_null(TEXT),
    "dry_run": FLAG,
    "quiet": FLAG,
    "log": _one_of("text", "json"),
    "debug": FLAG,
    "dataset.name": TEXT,
    "dataset.root": TEXT,
    "dataset.image_dir": (_is_relative, "it must be a folder inside dataset.root"),
    "dataset.prepare": _or_null(SECTION),
    "dataset.load": SECTION,
    "model.name": TEXT,
    "model.id": TEXT,
    "model.revision": _or_null(TEXT),
    "model.variant": _or_null(TEXT),
    "model.cache_dir": _or_null(TEXT),
    "model.dtype": PRECISION,
    "model.vae_dtype": PRECISION,
    "model.map_size": FEW,
    "model.rows": FEW,
    "model.vae_rows": FEW,
    "model.compile": FLAG,
    "model.ddim_steps": FEW,
    "model.guidance": NUMBER,
    "editor.external.root": TEXT,
    "editor.external.methods": (
        lambda value: (
            value is None
            or (isinstance(value, dict) and all(map(is_text, [*value, *value.values()])))
        ),
        "it must be null, or the mask of each method ({mine: predicted})",
    ),
    "hparams_search.trials": COUNT,
    "hparams_search.objective": _one_of("dice", "hypervolume"),
    "hparams_search.method": TEXT,
    "hparams_search.space": (
        lambda value: (
            isinstance(value, dict) and value != {} and all(map(_is_space, value.values()))
        ),
        "give each setting a list to choose from, or an interval {low: 1, high: 2}",
    ),
    "dataset": SECTION,
    "model": SECTION,
    "editor": _or_null(SECTION),
    "inversion": _or_null(SECTION),
    "metrics": SECTION,
    "mask": _or_null(SECTION),
    "tracker": SECTION,
    "executor": SECTION,
    "sweep": _or_null(SECTION),
    "hparams_search": _or_null(SECTION),
}
"""Every setting of conf/ but those of parts that are made by their ``_target_``."""

METHOD_SETTINGS: dict[str, Rule] = {
    "method": TEXT,
    "threshold": NUMBER,
    "sweep": (
        lambda value: (
            isinstance(value, list)
            and len(value) == 3
            and all(map(is_number, value))
            and is_whole(value[2], 1, 1000)
            and (value[0] < value[1] or value[2] == 1)
        ),
        "it must be [first, last, number] with first below last and at most 1000 thresholds",
    ),
    "draws": _or_null(FEW),
}
"""What can be set of a mask method, under ``mask.<name>``."""


def check(cfg: DictConfig) -> None:
    """Raise BenchmarkError for a setting that no stage could work with, before anything is run."""
    plain = _resolved(cfg)
    for name, value in plain.items():
        _check(name, value, SETTINGS)
        for key, entry in value.items() if name in ("model", "hparams_search") and value else ():
            _check(f"{name}.{key}", entry, SETTINGS)
    for key in ("name", "root", "image_dir", "prepare", "load"):
        _check(f"dataset.{key}", plain["dataset"].get(key), SETTINGS)
    for name, value in plain["metrics"].items():
        _check(f"metrics.{name}", value, {f"metrics.{name}": SECTION})
    check_part(cfg.tracker)
    check_part(cfg.executor, run=None)
    check_part(cfg.dataset.load, root=None, on_error=None)
    start_timestep(plain["strength"])
    check_editors(cfg)
    for name, settings in (plain.get("mask") or {}).items():
        if name in (*KNOWN_BASELINES, UNMASKED) or not isinstance(settings, dict):
            raise BenchmarkError(
                f"mask.{name} cannot be a map method: give it settings (method, threshold, sweep) "
                f"and a name other than {', '.join((*KNOWN_BASELINES, UNMASKED))}"
            )
        rules = {f"mask.{name}.{key}": rule for key, rule in METHOD_SETTINGS.items()}
        for key, value in settings.items():
            _check(f"mask.{name}.{key}", value, rules)
        cuts = settings.get("sweep", [0, 0, math.inf])[2]
        if type(plain["thresholds"]) is int and plain["thresholds"] > cuts:
            raise BenchmarkError(
                f"thresholds is {plain['thresholds']}, but mask.{name}.sweep has {cuts}: choose "
                "fewer, or a longer sweep"
            )


def check_editors(cfg: DictConfig) -> None:
    """Raise BenchmarkError for what is no editor or inversion, or does not take its settings."""
    if isinstance(inversion := cfg.get("inversion"), DictConfig):
        check_typed_part(inversion)
    for name, settings in (_resolved(cfg).get("editor") or {}).items():
        if not (is_text(name) and isinstance(settings, dict)):
            raise BenchmarkError(
                f"editor.{name} is no editor: give it a name and settings, as in conf/editor/"
            )
        if name == EXTERNAL:
            for key in {"root": None, "methods": None} | settings:
                _check(f"editor.external.{key}", settings.get(key), SETTINGS)
        else:
            check_typed_part(cfg.editor[name])


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values; BenchmarkError where one names another that is none."""
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise BenchmarkError(
            f"{error.full_key} cannot be resolved ({one_line(error)}): correct what is in ${{...}}"
        ) from error
    return plain


def _check(name: str, value: Any, rules: Mapping[str, Rule]) -> None:
    if name not in rules:
        near = difflib.get_close_matches(name, rules, 1)
        instead = f"did you mean {near[0]}?" if near else "leave it out"
        raise BenchmarkError(f"{name} is no setting: {instead}")
    holds, wanted = rules[name]
    if not holds(value):
        raise BenchmarkError(f"{name} is {_shown(value)}; {wanted}")


def one_line(error: object) -> str:
    return " ".join(str(error).split())


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
