"""One resolved configuration and the parts it names, each loaded at its first use.

Every process of a run builds its own ``Run`` from the same configuration. Knows no stage.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from hydra.utils import get_object
from omegaconf import DictConfig

from piebench_masks.data.sample import Sample
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.source import model_sizes, resolve_model
from piebench_masks.editing.editor import Editor
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import BASELINES, MapMethod
from piebench_masks.metrics import Metric
from piebench_masks.parts import made
from piebench_masks.provenance import provenance
from piebench_masks.settings import EXTERNAL, EditImageSettings, Settings, typed
from piebench_masks.store import Artifacts, Folder, Overwrite
from piebench_masks.values import one_line

P = ParamSpec("P")
T = TypeVar("T")


class Run:
    """The parts of one run.

    cfg: the settings, or a composed configuration (conf/config.yaml), which is checked here.
    device: takes the place of ``cfg.device``: a worker process has one of its own.
    Raises BenchmarkError where a value is missing or unknown.
    """

    def __init__(self, cfg: Settings | DictConfig, device: str | None = None) -> None:
        cfg = cfg if isinstance(cfg, Settings) else typed(cfg)
        self.cfg = cfg
        self.device = usable_device(device or cfg.device or default_device())
        self.overwrite = Overwrite(cfg.overwrite)
        self.results = Path(cfg.results_dir) / cfg.name
        self.parsed = 0  # samples that had to be parsed
        self.kept: dict[tuple[Any, ...], Any] = {}
        if cfg.threads:
            torch.set_num_threads(cfg.threads)

    def section(self, name: str) -> dict[str, Any]:
        """One section of the configuration as plain Python values; {} if left out."""
        return self.plain[name] or {}

    @functools.cached_property
    def plain(self) -> dict[str, Any]:
        """All settings, as YAML and JSON have them."""
        return self.cfg.plain()

    def folder(self, stage: str, parameters: dict[str, Any]) -> Folder:
        """The artifact folder of these parameters; new ones get this process's provenance."""
        artifacts = Artifacts(Path(self.cfg.artifacts_dir))
        if self.cfg.dry_run:
            return artifacts.at(stage, parameters)
        how = provenance() | {"device": str(self.device), "executor": self.section("executor")}
        return artifacts.folder(stage, parameters, how)

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
            vae_rows=model.vae_rows,
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
    def editors(self) -> dict[str, Editor]:
        """The chosen editors by name, in the order of the tables."""
        return made_editors(self.cfg)

    @functools.cached_property
    def metrics(self) -> list[Metric]:
        """The editing metrics; those with a network have it on this run's device."""
        return [
            made(node, **({"device": str(self.device)} if "device" in node else {}))
            for node in self.cfg.metrics.values()
        ]


def once(function: Callable[Concatenate[Run, P], T]) -> Callable[Concatenate[Run, P], T]:
    """The function, made to answer a run's same question from memory: for folders and their keys,
    which are asked for with every sample.
    """

    @functools.wraps(function)
    def answer(run: Run, *args: P.args, **kwargs: P.kwargs) -> T:
        question = (function, *args, *kwargs.items())
        if question not in run.kept:
            run.kept[question] = function(run, *args, **kwargs)
        return run.kept[question]

    return answer


def made_editors(cfg: Settings | EditImageSettings) -> dict[str, Editor]:
    """The editors of a configuration by name, without ``external``, which paints nothing."""
    return {name: made(node) for name, node in cfg.editor.items() if name != EXTERNAL}


def only_editor(cfg: EditImageSettings) -> Editor:
    """The editor of a configuration that has a single one; else BenchmarkError."""
    editors = made_editors(cfg)
    if len(editors) != 1:
        raise BenchmarkError(
            f"editor names {len(editors)} editors ({', '.join(editors)}): choose one, as in "
            "editor=turbo_edit"
        )
    return next(iter(editors.values()))


def usable_device(name: str) -> torch.device:
    """The torch device of that name; BenchmarkError if there is none here."""
    try:
        device = torch.device(name)
        if device.type == "cuda":
            torch.cuda.get_device_properties(device)
        else:
            torch.zeros(1, device=device).cpu()
    except Exception as error:  # each kind of device that torch may lack raises its own type
        there = torch.cuda.device_count() or "no"
        raise BenchmarkError(
            f"device {name} cannot be used ({str(error).splitlines()[0]}); there are {there} CUDA "
            "devices here; device=cpu needs none"
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
            "threshold, sweep and draws"
        ) from error


def _baseline(name: str) -> MapMethod:
    return next(method for method in BASELINES if method.name == name)
