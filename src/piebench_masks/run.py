"""One resolved configuration and the parts it names, each made at its first use.

Every process of a run builds its own ``Run`` from the same configuration. Knows no stage.
"""

import functools
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, get_args

import torch
from omegaconf import DictConfig

from piebench_masks.chosen import (
    ChosenModel,
    default_device,
    device_of,
    made_editors,
    made_method,
    made_metric,
    usable_device,
)
from piebench_masks.data.external_masks import external_masks
from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.editing.editor import Editor, Fitting, check_needs
from piebench_masks.editing.reconstruction import Reconstruction
from piebench_masks.identity import part_identity
from piebench_masks.masks import BASELINES, MapMethod
from piebench_masks.masks.external import external_methods
from piebench_masks.masks.soft_maps import needs_model
from piebench_masks.metrics import Metric, reads_of
from piebench_masks.parts import made
from piebench_masks.protocol import Casing, Protocol
from piebench_masks.provenance import provenance
from piebench_masks.section import built
from piebench_masks.settings import (
    BOUNDS,
    EXTERNAL,
    RECONSTRUCTION,
    WRITERS,
    ExternalMasks,
    Settings,
    typed,
)
from piebench_masks.store import Artifacts, Folder, Overwrite

P = ParamSpec("P")
T = TypeVar("T")


class Scorer(NamedTuple):
    """A metric, the settings that it is made of, and what it is shown."""

    metric: Metric
    node: Mapping[str, Any]
    casing: Casing


class Run:
    """The parts of one run.

    cfg: the settings, or a composed configuration (conf/config.yaml), which is checked here.
    device: replaces ``cfg.device`` in a worker process. identities: those of the process that
    started this one.
    Raises BenchmarkError where a value is missing or unknown.
    """

    def __init__(
        self,
        cfg: Settings | DictConfig,
        device: str | None = None,
        identities: Mapping[str, Any] | None = None,
    ) -> None:
        self.cfg = cfg = cfg if isinstance(cfg, Settings) else typed(cfg)
        self.device = usable_device(device or cfg.device or default_device())
        self.overwrite = Overwrite(cfg.overwrite)
        self.results = Path(cfg.results_dir) / cfg.name
        self.parsed = 0  # samples that had to be parsed
        self.edit_types: tuple[str, ...] = ()  # the data set's, once it is parsed
        self.answers: dict[tuple[Any, ...], Any] = {}
        self._identities = dict(identities or {})
        if cfg.threads:
            torch.set_num_threads(cfg.threads)

    def section(self, name: str) -> dict[str, Any]:
        """One section of the configuration as plain Python values; {} if left out."""
        return self.plain[name] or {}

    @functools.cached_property
    def plain(self) -> dict[str, Any]:
        """All settings, as YAML and JSON have them."""
        return self.cfg.plain()

    @functools.cached_property
    def artifacts(self) -> Artifacts:
        process = {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "executor": self.section("executor"),
        }
        return Artifacts(Path(self.cfg.artifacts_dir), provenance() | process)

    def folder(self, stage: str, parameters: dict[str, Any]) -> Folder:
        """The artifact folder of these parameters; a dry run only looks at it."""
        if self.cfg.dry_run:
            return self.artifacts.at(stage, parameters)
        return self.artifacts.folder(stage, parameters)

    def identity(self, name: str) -> Any:
        """What a part is in artifact keys: ``model``, ``mask.ours``, ``editor.turbo_edit`` ..."""
        if name not in self._identities:
            self._identities[name] = self._identify(name)
        return self._identities[name]

    @property
    def identities(self) -> dict[str, Any]:
        """Those of all parts that artifact keys name: hashed once, in the main process."""
        names = [f"mask.{name}" for name in self.methods]
        names += [f"candidates.{name}" for name in self.painting]
        names += [f"editor.{name}" for name in self.editors]
        names += [f"fitting.{name}" for name in self.fittings]
        names += [f"metrics.{name}" for name in self.scorers]
        if self.uses_model:
            names.insert(0, "model")
        names += self.writers
        for name in names:
            self.identity(name)
        return self._identities

    def _identify(self, name: str) -> Any:
        section, _, part = name.partition(".")
        if section == "model":
            return {**part_identity(self.model.kind), "weights": self.model.source[1]}
        if section in WRITERS:
            return part_identity(self.writers[section])
        if section == "candidates":
            return part_identity(self.methods[part].candidates)
        if section == "fitting":
            return part_identity(self.fittings[part])
        if section == "metrics":
            return part_identity(self.scorers[part].metric, _settings(self.scorers[part].node))
        parts: dict[str, Any] = {"mask": self.methods, "editor": self.editors}
        return part_identity(parts[section][part], _settings(self.section(section).get(part) or {}))

    @functools.cached_property
    def model(self) -> ChosenModel:
        return ChosenModel(self.cfg.model)

    @property
    def sizes(self) -> tuple[int, int]:
        """Sides of the model's images and latents; the weights are not loaded for it."""
        return self.model.description[0], self.model.description[1]

    @property
    def uses_model(self) -> bool:
        """Whether any method or editor of this run needs the diffusion model."""
        return (
            needs_model(self.methods)
            or bool(self.painting)
            or any(editor.needs is not None for editor in self.editors.values())
        )

    @property
    def painting(self) -> list[str]:
        """The methods that paint candidates."""
        return [name for name, method in self.methods.items() if method.candidates is not None]

    def check_editors(self) -> None:
        """Raise BenchmarkError where the model cannot do what an editor asks of it; what settings
        alone say of it, before the model is looked for.
        """
        model = self.cfg.model
        editors = {name: each for name, each in self.editors.items() if each.needs is not None}

        def check(provides: Collection[Capability]) -> None:
            for name, editor in editors.items():
                check_needs(editor, provides, name=name, model=f"model {model.name}")

        if not model.few_steps and model.backbone is None:
            check({*get_args(Capability)} - {"few_steps"})
        if editors:
            check(self.model.description[2])

    @functools.cached_property
    def backbone(self) -> Backbone:
        return self.model.load(self.device)

    def counts(self) -> Counter[str]:
        """Network rows evaluated so far in this process; empty while no model was loaded."""
        counts = Counter(self.backbone.counts) if "backbone" in self.__dict__ else Counter[str]()
        for editor in self.editors.values():
            counts += getattr(editor, "counts", Counter())
        return counts

    @functools.cached_property
    def methods(self) -> dict[str, MapMethod]:
        """The chosen mask methods, then the trivial baselines, in the order of the tables."""
        methods: dict[str, MapMethod] = {}
        for name, node in self.cfg.mask.items():
            methods |= (
                self._external_methods() if name == EXTERNAL else {name: made_method(name, node)}
            )
        return methods | {name: BASELINES[name] for name in self.cfg.baselines}

    def _external_methods(self) -> dict[str, MapMethod]:
        """The methods whose masks were made elsewhere."""
        settings = built(ExternalMasks, self.cfg.mask[EXTERNAL])
        knows = external_masks(Path(settings.root), settings.methods)
        return dict(external_methods(knows, threshold=settings.threshold, sweep=settings.sweep))

    @functools.cached_property
    def editors(self) -> dict[str, Editor]:
        """The chosen editors by name, in the order of the tables; behind those of a model what its
        autoencoder does alone, or else the chosen reconstruction.
        """
        editors = made_editors(self.cfg, str(self.device))
        chosen = editors.pop(RECONSTRUCTION, None)
        if any(editor.needs is not None for editor in editors.values()):
            chosen = chosen or Reconstruction()
        return editors | ({RECONSTRUCTION: chosen} if chosen else {})

    @functools.cached_property
    def fittings(self) -> dict[str, Fitting]:
        """What fits a model to pictures, of the editors that have it."""
        fittings = {name: getattr(editor, "fitting", None) for name, editor in self.editors.items()}
        return {name: fitting for name, fitting in fittings.items() if fitting is not None}

    @functools.cached_property
    def writers(self) -> dict[str, Any]:
        """What writes captions, of pictures and of concepts, as far as it was asked for."""
        nodes = {name: node for name in WRITERS if (node := getattr(self.cfg, name)) is not None}
        return {n: made(node, **device_of(node, str(self.device))) for n, node in nodes.items()}

    @property
    def scored_editors(self) -> list[str]:
        """Whose edits are scored: the editors, those made elsewhere, and what all lie between."""
        chosen = dict.fromkeys([*self.section("editor"), *self.editors])
        return [*chosen, *([BOUNDS] if chosen else [])]

    @functools.cached_property
    def protocols(self) -> dict[str, Protocol]:
        """The chosen protocols by name. All tables are of the first, the others stand beside it."""
        return {name: built(Protocol, node) for name, node in self.cfg.protocol.items()}

    @functools.cached_property
    def protocol(self) -> str:
        """The name of the protocol that tables are of."""
        return next(iter(self.protocols))

    def protocol_digest(self, name: str) -> str:
        """12 hex digits of a protocol with the run's metrics under it."""
        labels = self._labels[name].values()
        return self.protocols[name].digest({m: self.identity(f"metrics.{m}") for m in labels})

    def scorers_under(self, protocol: str) -> dict[str, str]:
        """By metric the name of what scores it under a protocol, among ``scorers``."""
        return self._labels[protocol]

    @property
    def scorers(self) -> dict[str, Scorer]:
        """What the protocols together score with, each once. Those of the first protocol have
        their metric's name, others that of the first protocol that needs them, too.
        """
        return self._scorers[0]

    @property
    def _labels(self) -> dict[str, dict[str, str]]:
        return self._scorers[1]

    @functools.cached_property
    def _scorers(self) -> tuple[dict[str, Scorer], dict[str, dict[str, str]]]:
        scorers: dict[str, Scorer] = {}
        metrics: dict[str, Metric] = {}
        labels: dict[str, dict[str, str]] = {}
        for protocol_name, protocol in self.protocols.items():
            for name, node in self.cfg.metrics.items():
                settings = {**node, **(protocol.metrics or {}).get(name, {})}
                if str(settings) not in metrics:
                    metrics[str(settings)] = made_metric(settings, str(self.device))
                metric = metrics[str(settings)]
                scorer = Scorer(metric, settings, protocol.casing.as_read(reads_of(metric)))
                label = next((known for known, one in scorers.items() if one == scorer), None)
                if label is None:
                    label = name if protocol_name == self.protocol else f"{name}, {protocol_name}"
                    scorers[label] = scorer
                labels.setdefault(protocol_name, {})[name] = label
        return scorers, labels


def once(function: Callable[Concatenate[Run, P], T]) -> Callable[Concatenate[Run, P], T]:
    """The function with a cache in each run: for folders and their keys, which are asked for with
    every sample.
    """

    @functools.wraps(function)
    def answer(run: Run, *args: P.args, **kwargs: P.kwargs) -> T:
        question = (function, *args, *kwargs.items())
        if question not in run.answers:
            run.answers[question] = function(run, *args, **kwargs)
        return run.answers[question]

    return answer


def _settings(node: Mapping[str, Any]) -> dict[str, Any]:
    """What a part is made with, without Hydra's own keys."""
    return {key: value for key, value in node.items() if not key.startswith("_")}
