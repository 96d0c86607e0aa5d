"""Every setting of a run: its name, type, default, range and comment, written down here and once.

``typed`` makes ``Settings`` of a composed configuration, and refuses what no stage could work with
before anything is run. The values of the groups stand in conf/. What a part makes of its settings
is the part's own affair.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from piebench_masks.errors import BenchmarkError
from piebench_masks.parts import Part, check_part, made, takes
from piebench_masks.protocol import OFFICIAL, Protocol
from piebench_masks.section import Section, built, defaults, setting
from piebench_masks.values import one_line, suits
from piebench_masks.weights import packaged

UNMASKED = "none"
"""The tables' name of the edit without a mask."""
EXTERNAL = "external"
"""The name under ``editor`` of edits, and under ``mask`` of masks, that were made elsewhere."""
BOUNDS = "bounds"
"""What edits lie between: the source, what the autoencoder makes of it (no file), the true edit."""
IDENTITY, RECONSTRUCTION, TARGET = "identity", "reconstruction", "target"
WRITERS = ("captions", "concepts")
Knows = Literal[
    "nothing", "prompts", "word", "instruction", "type", "scores", "annotation", "unknown"
]
Baseline = Literal["full", "empty", "centre", "random", "oracle"]
Precision = Literal["float32", "float16", "bfloat16"]
LEVELS: tuple[Knows, ...] = get_args(Knows)
"""What a mask or edit may know of the answer, from the least to the most; unknown may be all."""
BASELINE_NAMES: tuple[Baseline, ...] = get_args(Baseline)

EXAMPLES = {"hparams_search.space": "'{mask.ours.draws: [1, 4]}'", "folder": "my_picture"}
EXAMPLES |= {"item": "circle", "source": "star", "words": "'a blue star'", "other": "my_other"}
"""Of settings that must be given and are no path."""
OmegaConf.register_new_resolver("packaged", packaged, replace=True)


def _is_relative(value: str) -> bool:
    return not Path(value).is_absolute() and ".." not in Path(value).parts


def _is_different(value: Any) -> bool:
    return not isinstance(value, tuple) or len(set(value)) == len(value)


def _is_some(value: Any) -> bool:
    return value != () and value != {}


@dataclass(frozen=True, kw_only=True)
class DatasetSettings(Section):
    place: ClassVar[str] = "dataset."

    name: str = setting(comment="what tables and folders call it")
    root: str = setting(comment="the data set's folder")
    image_dir: str = setting(
        comment="of the pictures, inside root",
        valid=_is_relative,
        wanted="it must be a folder inside dataset.root",
    )
    source: str | None = setting(None, "the download that prepare makes root of")
    prepare: Part | None = setting(None, "what makes root where it is not there yet")
    load: Part = setting(comment="what reads the samples")


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Section):
    place: ClassVar[str] = "model."

    name: str = setting(comment="what tables and folders call it")
    id: str = setting(comment="on the Hugging Face hub, or a local folder")
    revision: str | None = setting(None, "of the hub's repository: a branch, tag or commit")
    variant: str | None = setting(None, "of the weights' files, as fp16")
    cache_dir: str | None = setting(None, "of downloads; null: the hub's default")
    dtype: Precision = setting(comment="of the U-Net and the text encoders")
    vae_dtype: Precision = setting(comment="of the VAE")
    map_size: int = setting(
        comment="side of the cross-attention maps that are averaged", low=1, high=1000
    )
    rows: int = setting(comment="of one U-Net call; halved where memory runs out", low=1, high=1000)
    vae_rows: int = setting(comment="of one VAE call", low=1, high=1000)
    compile: bool = setting(False, "torch.compile the U-Net's transformer blocks")
    backbone: str | None = setting(
        None, "import path of a class of one's own that loads id; null: by its model_index.json"
    )
    few_steps: bool = setting(False, "distilled to few steps, which some editors need")
    ddim_steps: int = setting(comment="of the editors that invert by DDIM", low=1, high=1000)
    guidance: float = setting(comment="of the editors that take classifier-free guidance")


@dataclass(frozen=True, kw_only=True)
class ExternalEdits(Section):
    """Checked alone: edits made elsewhere are no part with a ``_target_``."""

    place: ClassVar[str] = "editor.external."

    root: str = setting(comment="root/<method>/annotation_images/<image>")
    methods: dict[str, str] | None = setting(
        None,
        "null: every folder in root",
        wanted="it must be null, or the mask of each method ({mine: predicted})",
    )
    knows: dict[str, Knows] | None = setting(
        None,
        "what each method was told beside its mask; unknown where it is not stated",
        wanted="it must be null, or say what methods were told ({mine: prompts}), one of "
        f"{', '.join(get_args(Knows))}",
    )


@dataclass(frozen=True, kw_only=True)
class ExternalMasks(Section):
    """Checked alone: masks made elsewhere are no part with a ``_target_``."""

    place: ClassVar[str] = "mask.external."

    root: str = setting(comment="root/<method>/<image path without suffix, or id>.png or .npy")
    methods: dict[str, Knows] = setting(
        comment="the folders in root, and what each one's masks were made from",
        valid=_is_some,
        wanted=f"it must say what each method's masks were made from ({{mine: prompts}}), one of "
        f"{', '.join(get_args(Knows))}",
    )
    threshold: float = setting(0.5, "hard masks are cut at one half")
    sweep: tuple[float, float, int] = setting((0.0, 1.0, 21), "first, last, number")


def _is_space(value: Any) -> bool:
    if isinstance(value, Mapping):
        ends: Any = value.get("low"), value.get("high")
        return len(value) == 2 and suits(ends, tuple[float, float]) and ends[0] < ends[1]
    return isinstance(value, list) and value != [] and not any(map(_is_nested, value))


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | dict)


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Section):
    place: ClassVar[str] = "hparams_search."

    trials: int = setting(comment="finished ones, after which the search ends", low=1)
    objective: Literal["dice", "hypervolume"] = setting(
        comment="the method's mean, or what its edits dominate (thresholds=sweep)"
    )
    method: str = setting(comment="whose scores are searched for")
    space: dict[str, Any] = setting(
        comment="a list to choose from, or an interval {low: 1, high: 2}, for each setting",
        valid=lambda space: space != {} and all(map(_is_space, space.values())),
        wanted="give each setting a list to choose from, or an interval {low: 1, high: 2}",
    )


@dataclass(frozen=True, kw_only=True)
class SweepSettings(Section):
    place: ClassVar[str] = "sweep."

    name: str = setting(comment="the folder in results_dir of all runs of the sweep")
    values: dict[str, Any] = setting(comment="what this run varies")


@dataclass(frozen=True, kw_only=True)
class MapSettings(Section):
    """What soft maps depend on, beside method and model."""

    compat: Literal["exact", "reference"] = setting("exact", "reproduce the reference's quirks")
    strength: float = setting(0.5, "the noise level of the one U-Net step", low=0.25, high=1)
    num_repeat: int = setting(1, "noise draws to average over", low=1, high=1000)
    sample_mode: Literal["argmax", "sample"] = setting("argmax", "the VAE's mean, or a draw")
    seed: int = setting(8128, "of the maps' noise")


@dataclass(frozen=True, kw_only=True)
class Settings(MapSettings):
    """One resolved configuration (conf/config.yaml): what is run on what, and how."""

    stages: tuple[str, ...] = setting(
        ("parse", "masks", "edit", "score", "report"),
        "or some of them",
        valid=lambda names: _is_some(names) and _is_different(names),
        wanted="it must be a list of different stages",
        heading="What is run",
    )
    baselines: tuple[Baseline, ...] = setting(
        BASELINE_NAMES,
        "trivial masks that stand in every table",
        valid=_is_different,
        wanted=f"choose different ones of {', '.join(BASELINE_NAMES)}",
    )
    thresholds: Literal["one", "sweep"] | int | tuple[float, ...] = setting(
        "one",
        "one (each method's own) | sweep | 7 (that many of the sweep) | a list",
        low=1,
        valid=lambda chosen: _is_some(chosen) and _is_different(chosen),
        wanted="choose one, sweep, a number of the sweep's thresholds (7) or a list ([0.3,0.5])",
    )
    limit: int | None = setting(None, "only the first N samples", low=1)
    name: str = setting(
        "${dataset.name}-${model.name}",
        "the folder in results_dir, whose earlier run is replaced",
        valid=_is_relative,
        wanted="it must be a folder name, inside results_dir",
        heading="Where",
    )
    results_dir: str = setting("results", "tables, figures and the report, a folder for each run")
    artifacts_dir: str = setting("artifacts", "what is computed once; runs share it")
    data_dir: str = setting("data", "where data sets of our own making are written")
    device: str | None = setting(
        None, "cpu | cuda:1 ...; null: the first CUDA device, or the CPU", heading="How"
    )
    devices: Literal["auto"] | tuple[int | str, ...] | None = setting(
        None,
        "[0,1] | [cuda:0,cuda:1] | [cpu,cpu]: one worker process per device | auto: all",
        valid=_is_some,
        wanted="it must be a list such as [0,1] or [cpu,cpu], auto, or null",
    )
    threads: int | None = setting(
        None, "CPU threads of each process; null: torch's default", low=1, high=1000
    )
    batch_size: int = setting(8, "samples per batch; an interruption loses at most one", low=1)
    on_error: Literal["raise", "skip"] = setting(
        "raise", "what to do with samples that cannot be used"
    )
    fail_on_error: bool | float = setting(
        0.25,
        "stop when this share (or, from 1, this count) of a stage's items failed",
        low=0,
        wanted="it must be true, false, a share (0.25) or a count",
    )
    overwrite: Literal["only-missing", "always", "never", "only-cache"] = setting(
        "only-missing",
        "compute what is missing | everything | everything, in new folders only | nothing",
    )
    baseline: str | None = setting(
        None, "for `piebench-masks regress`: a baseline's file, or update to write one"
    )
    sweep: SweepSettings | None = setting(
        None, "set by -m and hparams_search: the sweep's name and what this run varies"
    )
    dry_run: bool = setting(
        False, "true: print what would be computed and what is cached; nothing is written"
    )
    quiet: bool = setting(False, "only final tables and errors on the terminal")
    log: Literal["text", "json"] = setting(
        "text", "one JSON object a line (progress, failures, end), for clusters"
    )
    debug: bool = setting(False, "true: tracebacks and everything that is logged")
    noise_dtype: Literal["float32", "float16"] = setting(
        "float32", "which stream of random numbers the map noise comes from", heading="Maps"
    )

    dataset: DatasetSettings
    against: DatasetSettings | None = None
    model: ModelSettings
    mask: dict[str, Any] = field(default_factory=dict)
    editor: dict[str, Any] = field(default_factory=dict)
    inversion: Part | None = None
    captions: Part | None = None
    concepts: Part | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=lambda: {OFFICIAL: {}})
    tracker: Part
    executor: Part
    hparams_search: SearchSettings | None = None

    def check_parts(self) -> None:
        """Raise BenchmarkError for a part that is not there or does not take its settings."""
        for name in ("tracker", *(name for name in WRITERS if getattr(self, name) is not None)):
            check_part(name, getattr(self, name))
        check_part("executor", self.executor, run=None, stage_of=None)
        check_part("dataset.load", self.dataset.load, root=None, on_error=None)
        if self.dataset.prepare is not None:
            check_part("dataset.prepare", self.dataset.prepare, root=None)
        for name, node in self.metrics.items():
            _check_metric(f"metrics.{name}", node)
        if not self.protocol:
            raise BenchmarkError("protocol is empty: choose one, as in protocol=official")
        for name, node in self.protocol.items():
            self._check_protocol(name, node)
        check_editors(self.editor, self.inversion)
        for name, node in self.mask.items():
            self._check_method(name, node)

    def _check_protocol(self, name: str, node: Any) -> None:
        """Settings of metrics that this run has not are left out."""
        for metric, settings in (built(Protocol, node).metrics or {}).items():
            if metric in self.metrics:
                place = f"protocol.{name}.metrics.{metric}"
                _check_metric(place, {**self.metrics[metric], **settings})

    def _check_method(self, name: str, node: Any) -> None:
        if name in (*BASELINE_NAMES, UNMASKED) or not isinstance(node, Mapping):
            raise BenchmarkError(
                f"mask.{name} cannot be a map method: give it a _target_ with its settings, and a "
                f"name other than {', '.join((*BASELINE_NAMES, UNMASKED))}"
            )
        if name == EXTERNAL:
            sweep = built(ExternalMasks, node).sweep
        else:
            check_part(f"mask.{name}", node)
            try:
                method = made(node)
                sweep, _ = method.sweep, method.all_needs
            except Exception as error:  # the method's own rules; it may come from anywhere
                raise BenchmarkError(f"mask.{name} cannot be made: {one_line(error)}") from error
        if isinstance(self.thresholds, int) and self.thresholds > sweep[2] > 1:
            raise BenchmarkError(
                f"thresholds is {self.thresholds}, but mask.{name}.sweep has {sweep[2]}: choose "
                "fewer, or a longer sweep"
            )


def _check_metric(name: str, node: Any) -> None:
    check_part(name, node, **{"device": None} if takes(node, "device") else {})


@dataclass(frozen=True, kw_only=True)
class EditImageSettings(MapSettings):
    """One picture, one edit: conf/edit_image.yaml."""

    image: str = setting(comment="the picture's file", heading="The edit")
    source_prompt: str = setting(comment="what the picture shows")
    target_prompt: str = setting(comment="what it shall show")
    output: str = setting("edited.png", "the edited picture's file")
    method: str | None = setting("ours", "whose mask; null: without a mask")
    threshold: float | None = setting(None, "of the mask; null: the method's own")
    device: str | None = setting(None, "cpu | cuda:1 ...; null: the first CUDA device, or the CPU")
    debug: bool = setting(False, "true: tracebacks and everything that is logged")

    model: ModelSettings
    editor: dict[str, Any]
    inversion: Part | None = None

    def check_parts(self) -> None:
        check_editors(self.editor, self.inversion)


def check_editors(editors: Mapping[str, Any], inversion: Part | None) -> None:
    """Raise BenchmarkError for what is no editor or inversion, or does not take its settings."""
    if inversion is not None:
        check_part("inversion", inversion)
    for name, node in editors.items():
        if not (suits(name, str) and isinstance(node, Mapping)):
            raise BenchmarkError(
                f"editor.{name} is no editor: give it a name and settings, as in conf/editor/"
            )
        if name == EXTERNAL:
            built(ExternalEdits, node)
        else:
            check_part(f"editor.{name}", node)


S = TypeVar("S", bound=Section)
PARTS = ("mask", "editor", "metrics", "protocol")
"""Groups of parts by name, which may be empty."""


def typed(cfg: DictConfig) -> Settings:
    """The settings of a composed configuration; BenchmarkError, which names what is wrong there."""
    return typed_as(cfg, Settings)


def typed_edit(cfg: DictConfig) -> EditImageSettings:
    """As ``typed``, of conf/edit_image.yaml."""
    return typed_as(cfg, EditImageSettings)


def typed_as(cfg: DictConfig, kind: type[S]) -> S:
    """As ``typed``, of another kind of settings."""
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        missing = OmegaConf.missing_keys(cfg)
    except OmegaConfBaseException as error:
        raise BenchmarkError(
            f"{error.full_key} cannot be resolved ({one_line(error)}): correct what is in ${{...}}"
        ) from error
    if missing:
        names = " and ".join(sorted(missing))
        example = EXAMPLES.get(min(missing), "/path/to/it")
        raise BenchmarkError(f"{names} must be set, for example {min(missing)}={example}")
    settings = built(kind, {k: {} if v is None and k in PARTS else v for k, v in plain.items()})
    settings.check_parts()
    return settings


STORE = ConfigStore.instance()
STORE.store("settings", defaults(Settings))
STORE.store("edit_image_settings", defaults(EditImageSettings))
