"""One resolved configuration and the parts it names, each loaded at its first use.

Every process of a run builds its own ``Run`` from the same configuration. Knows no stage.
"""

import dataclasses
import difflib
import functools
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from piebench_masks.data.sample import Sample
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.ddpm import start_timestep
from piebench_masks.diffusion.source import model_sizes, packaged, resolve_model
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import BASELINES, MapMethod
from piebench_masks.metrics import Metric
from piebench_masks.provenance import provenance
from piebench_masks.store import Artifacts, Folder, Overwrite

UNMASKED = "none"
"""The tables' name of the edit without a mask."""

OmegaConf.register_new_resolver("packaged", packaged, replace=True)


class Run:
    """The parts of one run.

    cfg: the composed configuration (conf/config.yaml).
    device: takes the place of ``cfg.device``: a worker process has one of its own.
    Raises BenchmarkError where a value is missing or unknown.
    """

    def __init__(self, cfg: DictConfig, device: str | None = None) -> None:
        require(cfg)
        check(cfg)
        self.cfg = cfg
        self.device = usable_device(device or cfg.device or default_device())
        self.overwrite = Overwrite(cfg.overwrite)
        self.results = Path(cfg.results_dir) / cfg.name
        self.parsed = 0  # samples that had to be parsed
        self._described: set[Folder] = set()
        if cfg.threads:
            torch.set_num_threads(cfg.threads)

    def section(self, name: str) -> dict[str, Any]:
        """One section of the configuration as plain, resolved Python values; {} if left out."""
        chosen = OmegaConf.select(self.cfg, name)
        plain = OmegaConf.to_container(chosen, resolve=True) if chosen else {}
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    def folder(self, stage: str, parameters: dict[str, Any]) -> Folder:
        """The artifact folder of these parameters; new ones get this process's provenance."""
        artifacts = Artifacts(Path(self.cfg.artifacts_dir))
        folder = artifacts.at(stage, parameters)
        if not self.cfg.dry_run and folder not in self._described:
            how = provenance() | {"device": str(self.device)}
            self._described.add(artifacts.folder(stage, parameters, how))
        return folder

    @functools.cached_property
    def model_source(self) -> tuple[Path, str]:
        """Folder and identity of the diffusion model; a hub model is downloaded if need be."""
        model = self.cfg.model
        return resolve_model(
            model.id, revision=model.revision, variant=model.variant, cache_dir=model.cache_dir
        )

    @functools.cached_property
    def sizes(self) -> tuple[int, int]:
        """Sides of the model's images and latents; the weights are not loaded for it."""
        return model_sizes(self.model_source[0])

    @functools.cached_property
    def backbone(self) -> Backbone:
        model = self.cfg.model
        return Backbone.from_folder(
            self.model_source[0],
            variant=model.variant,
            dtype=getattr(torch, model.dtype),
            vae_dtype=getattr(torch, model.vae_dtype),
            device=self.device,
            rows=model.rows,
            map_size=model.map_size,
            compiled=model.compile,
        )

    def counts(self) -> Counter[str]:
        """Network rows evaluated so far in this process; empty while no model was loaded."""
        return Counter(self.backbone.counts) if "backbone" in self.__dict__ else Counter()

    @functools.cached_property
    def methods(self) -> dict[str, MapMethod]:
        """The chosen map methods, then the trivial baselines, in the order of the tables."""
        methods = {name: _method(name, settings) for name, settings in self.section("mask").items()}
        return methods | {name: _baseline(name) for name in self.cfg.baselines}

    @functools.cached_property
    def metrics(self) -> list[Metric]:
        """The editing metrics; those with a network have it on this run's device."""
        return [
            made(node, **({"device": str(self.device)} if "device" in node else {}))
            for node in self.cfg.metrics.values()
        ]


def made(node: DictConfig, **arguments: Any) -> Any:
    """What a ``_target_`` node makes; its errors come as they are, not wrapped in Hydra's.

    Raises BenchmarkError where the target is not there or does not take these settings.
    """
    check_part(node, **arguments)
    return instantiate(node, _partial_=True)(**arguments)


def check_part(node: DictConfig, **arguments: Any) -> None:
    """Raise BenchmarkError unless ``node`` names something that takes its settings and these."""
    name = node._get_full_key(None)
    try:
        target = get_object(str(node["_target_"]))
        own = {str(key): value for key, value in node.items() if key != "_target_"}
        inspect.signature(target).bind(**own | arguments)
    except Exception as error:  # importing runs whatever is there
        raise BenchmarkError(
            f"{name} does not describe a part of the benchmark ({one_line(error)}): choose one of "
            f"the options in conf/{name.split('.')[0]}/, or set {name}._target_ to an import path "
            "and beside it only what that takes"
        ) from error


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
KNOWN_BASELINES = tuple(method.name for method in BASELINES)
SECTION: Rule = (lambda value: isinstance(value, dict)), "it must be a section of settings"

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
            value is None
            or (isinstance(value, list) and len(value) > 0 and all(map(_is_device, value)))
        ),
        "it must be a list such as [0,1] or [cpu,cpu], or null",
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
    "model.compile": FLAG,
    "editor.name": _one_of("turbo_edit", "external"),
    "editor.steps": ((lambda value: value in (3, 4)), "choose 3 or 4"),
    "editor.w": NUMBER,
    "editor.seed": SEED,
    "editor.root": TEXT,
    "editor.methods": (
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
    "editor": SECTION,
    "metrics": SECTION,
    "mask": _or_null(SECTION),
    "tracker": SECTION,
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
        for key, entry in (
            value.items() if name in ("model", "editor", "hparams_search") and value else ()
        ):
            _check(f"{name}.{key}", entry, SETTINGS)
    for key in ("name", "root", "image_dir", "prepare", "load"):
        _check(f"dataset.{key}", plain["dataset"].get(key), SETTINGS)
    for name, value in plain["metrics"].items():
        _check(f"metrics.{name}", value, {f"metrics.{name}": SECTION})
    check_part(cfg.tracker)
    check_part(cfg.dataset.load, root=None, on_error=None)
    start_timestep(plain["strength"])
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


def usable_device(name: str) -> torch.device:
    """The torch device of that name; BenchmarkError if there is none here."""
    try:
        device = torch.device(name)
        if device.type == "cuda":
            torch.cuda.get_device_properties(device)
        else:
            torch.zeros(1, device=device).cpu()
    except Exception as error:  # each kind of device that torch may lack raises its own type
        raise BenchmarkError(
            f"device {name} cannot be used ({str(error).splitlines()[0]}); choose device=cpu, or "
            f"one of the {torch.cuda.device_count()} CUDA devices here"
        ) from error
    return device


def default_device() -> str:
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def item_name(sample: Sample) -> str:
    """What a sample's artifacts are called: its id, and a hash of all that it consists of."""
    return f"{sample.id}-{sample.digest[:12]}"


def _method(name: str, settings: dict[str, Any]) -> MapMethod:
    fields: dict[str, Any] = {
        field: tuple(v) if isinstance(v, list) else v for field, v in settings.items()
    }
    try:
        method = get_object(str(fields.pop("method")))
        if not isinstance(method, MapMethod):
            raise TypeError(f"a {type(method).__name__} is none")
        return dataclasses.replace(method, name=name, **fields)
    except Exception as error:  # importing runs whatever is there
        raise BenchmarkError(
            f"mask.{name} does not describe a map method ({one_line(error)}): set "
            f"mask.{name}.method to the import path of a MapMethod, and beside it only "
            f"{', '.join(METHOD_SETTINGS)}"
        ) from error


def _baseline(name: str) -> MapMethod:
    return next(method for method in BASELINES if method.name == name)
