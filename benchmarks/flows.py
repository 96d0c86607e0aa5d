"""Both flows on the same samples, phase by phase: what is timed, counted and handed back.

A phase's clock starts when its networks are loaded and stops when its results are files. Knows the
package by its configuration, ``Run`` and ``run_stage`` alone.
"""

import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

PHASES = {
    "maps": ("masks",),
    "edits": ("cut masks", "edit turbo_edit"),
    "segmentation scores": ("score masks",),
    "editing scores": ("score edits turbo_edit",),
}
"""The phases that are compared, and the package's names of each one's stages."""
METHODS = {"ours": (0, 1, 0.7), "attn_based": (0, 1, 0.6), "noise_based": (0, 5, 3.0)}
"""The reference's methods: first and last threshold of the sweep, and the single one."""
Flow = Literal["reference", "project"]
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """What both flows work on.

    data: a folder in PIE-Bench's form with annotations of side ``size`` whose outermost ``border``
    pixels are set; model: a diffusers folder; clip: an open_clip folder; lpips: a safetensors file
    of SqueezeNet features. noise_grid: what the stored maps of ``noise_based`` are enlarged to
    (SDXL's have 64x64 values). compiled: the package's U-Net; options: more of its settings.
    """

    data: Path
    size: int
    border: int
    model: Path
    clip: Path
    lpips: Path
    device: str = "cpu"
    dtype: str = "float32"
    vae_dtype: str = "float32"
    noise_grid: int | None = None
    compiled: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """How much is asked for: the first samples, methods and so many thresholds of each.

    repeats: every phase's seconds are the least of so many runs, each from nothing.
    unmasked: whether the reference's flow edits without a mask too, as the package always does.
    """

    samples: int
    thresholds: int = 21
    methods: int = 3
    phases: tuple[str, ...] = tuple(PHASES)
    repeats: int = 1
    unmasked: bool = False

    def cuts(self) -> dict[str, list[float]]:
        import numpy as np

        return {
            name: np.linspace(first, last, self.thresholds).round(6).tolist()
            if self.thresholds > 1
            else [float(one)]
            for name, (first, last, one) in list(METHODS.items())[: self.methods]
        }


@dataclass
class Measured:
    """What one flow took for one setting.

    seconds, counts: by phase, counts of network rows; cached_seconds: the same setting again on
    the finished artifacts (the reference keeps none). ratio_seconds: of the segmentation scores,
    for the eight that the reference has. warm_mib, peak_mib: the most memory that the process has
    had, after warming up and after this setting; device_mib: the most that torch has had of a CUDA
    device's.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    ratio_seconds: float = 0.0
    cached_seconds: float | None = None
    warm_mib: float = 0.0
    peak_mib: float = 0.0
    device_mib: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @contextmanager
    def phase(self, name: str) -> Iterator[Counter[str]]:
        """Times the block; it adds to the counter what it asked of the networks."""
        counts: Counter[str] = Counter()
        started = time.perf_counter()
        yield counts
        self.seconds[name] = time.perf_counter() - started
        self.counts[name] = dict(counts)


def in_child(function: Callable[..., T], *arguments: Any) -> T:
    """What a function returns in a process of its own: its peak of memory is its work's alone."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(flow: Flow, place: Place, settings: Sequence[Setting]) -> list[Measured]:
    """Each setting in turn, after one small setting to warm up."""
    be_quiet()
    run_once = {"reference": reference_flow, "project": project_flow}[flow](place)
    run_once(Setting(samples=1, thresholds=1))
    warm = peak_mib()
    found = []
    for setting in settings:
        runs = [run_once(setting) for _ in range(setting.repeats)]
        best = runs[0]
        best.seconds = {phase: min(run.seconds[phase] for run in runs) for phase in best.seconds}
        best.ratio_seconds = min(run.ratio_seconds for run in runs)
        best.warm_mib, best.peak_mib, best.device_mib = warm, peak_mib(), device_mib()
        found.append(best)
    return found


def measure_all(
    flow: Flow, jobs: Sequence[tuple[Place, Sequence[Setting]]]
) -> list[list[Measured]]:
    """``measure`` for several places, one after the other."""
    return [measure(flow, place, settings) for place, settings in jobs]


def be_quiet() -> None:
    """No bars and advice of the libraries between the tables."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    warnings.filterwarnings("ignore")


def peak_mib() -> float:
    """The most resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_mib() -> float:
    """The most memory of a CUDA device that this process's tensors have had, 0 without one."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0


def reference_flow(place: Place) -> Callable[[Setting], Measured]:
    """The reference with its networks loaded: a function that runs a setting from nothing."""
    import torch
    from reference_flow import ReferenceFlow, entries
    from reference_run import ReferenceRun

    flow = ReferenceFlow.load(
        place.model,
        dtype=getattr(torch, place.dtype),
        vae_dtype=getattr(torch, place.vae_dtype),
        device=place.device,
    )
    scorers = reference_scorers(place)

    def run_once(setting: Setting) -> Measured:
        with tempfile.TemporaryDirectory() as folder:
            return measured_reference(
                ReferenceRun(
                    flow,
                    scorers,
                    entries(place.data, setting.samples),
                    setting.cuts(),
                    place.size,
                    place.border,
                    Path(folder),
                    setting.unmasked,
                ),
                setting.phases,
            )

    return run_once


def measured_reference(run: Any, phases: Sequence[str]) -> Measured:
    """These phases of a ``ReferenceRun``; what they make is left where it is."""
    work = dict(
        zip(
            PHASES,
            (run.maps, run.edits, run.segmentation_scores, run.editing_scores),
            strict=True,
        )
    )
    measured = Measured()
    for phase in phases:
        before = Counter(run.flow.counts)
        with measured.phase(phase) as counts:
            work[phase]()
            counts.update(run.flow.counts - before)
    return measured


def reference_scorers(place: Place) -> Any:
    """The networks of the editing scores, from the same files as the package's."""
    import lpips
    import open_clip
    from reference_scores import Scorers
    from safetensors.torch import load_file

    from piebench_masks.metrics.lpips import load_features

    name = f"local-dir:{place.clip}"
    clip, preprocess = open_clip.create_model_from_pretrained(name)
    with warnings.catch_warnings(action="ignore"):  # torchvision's, about the package's call
        distance = lpips.LPIPS(net="squeeze", lpips=False, pnet_rand=True, verbose=False)
    load_features(distance, load_file(place.lpips))
    return Scorers(
        clip.eval().to(place.device),
        preprocess,
        open_clip.get_tokenizer(name),
        distance.eval().to(place.device),
        place.device,
    )


def project_flow(place: Place) -> Callable[[Setting], Measured]:
    """The package: a function that runs a setting from nothing, then again on what it made."""
    kept: dict[str, Any] = {}

    def run_once(setting: Setting) -> Measured:
        from piebench_masks.run import Run

        with tempfile.TemporaryDirectory() as folder:
            # Fresh networks each time, which remember no prompts of another setting; but a compiled
            # one is compiled while warming up, and then kept.
            run = Run(configuration(place, setting, Path(folder)))
            vars(run).update(kept)
            measured = measured_project(place, run, setting)
            started = time.perf_counter()
            measured_project(place, run, setting)
            measured.cached_seconds = time.perf_counter() - started
            if place.compiled:
                kept.update(backbone=run.backbone, _scorers=run._scorers)
            return measured

    return run_once


def measured_project(place: Place, run: Any, setting: Setting) -> Measured:
    """The stages of the phases, as the command runs them; their artifacts are left where they are.

    Raises RuntimeError if any item failed: a comparison needs all of them.
    """
    from rich.console import Console

    from piebench_masks.executors.local import in_process
    from piebench_masks.runner import Outcome, run_stage
    from piebench_masks.stages import stage_of
    from piebench_masks.stages.parse import parse

    console = Console(quiet=True)
    samples = parse(run, console).samples
    measured = Measured()
    for phase in setting.phases:
        stages = [stage_of(name, run, samples) for name in PHASES[phase]]
        for stage in stages:
            stage.prepare()
        outcome = Outcome()
        with in_process(run) as executor, measured.phase(phase) as counts:
            for stage in stages:
                outcome.add(
                    run_stage(
                        stage,
                        executor,
                        batch_size=run.cfg.batch_size,
                        overwrite=run.overwrite,
                        fail_on_error=run.cfg.fail_on_error,
                        console=console,
                    )
                )
            counts.update(outcome.counts)
        if outcome.failures:
            raise RuntimeError(f"{phase}: {outcome.failures[0]}")
        if phase == "segmentation scores":
            measured.ratio_seconds = seconds_of_ratios(run, samples)
        if phase == "maps" and place.noise_grid and "noise_based" in run.methods:
            enlarge_noise_maps(run, samples, place.noise_grid)
    return measured


def seconds_of_ratios(run: Any, samples: Sequence[Any]) -> float:
    """What the eight ratios of all stored maps at all thresholds take, files read and all."""
    import numpy as np

    from piebench_masks.data.rle import from_coco
    from piebench_masks.metrics.segmentation import nested, ratios
    from piebench_masks.stages.maps import read_map

    started = time.perf_counter()
    for sample in samples:
        target = from_coco(sample.mask)
        for name, method in run.methods.items():
            stored, cuts = read_map(run, name, sample), method.thresholds
            m, levels = method.cutter.cut(stored, cuts, target.shape, run.cfg.compat)
            ratios(nested(m.numpy(), np.sort(levels.numpy())), len(cuts), target)
    return time.perf_counter() - started


def enlarge_noise_maps(run: Any, samples: Sequence[Any], side: int) -> None:
    """The stored maps of ``noise_based`` on a finer grid, bilinear."""
    import torch.nn.functional as F

    from piebench_masks.stages.maps import map_folder, map_name

    folder = map_folder(run, "noise_based")
    for sample in samples:
        tensors = folder.read_tensors(map_name(run, "noise_based", sample))
        assert tensors is not None
        small = tensors["map"][None, None]
        large = F.interpolate(small, (side, side), mode="bilinear", align_corners=False)
        folder.write_tensors(map_name(run, "noise_based", sample), {"map": large[0, 0]})


def configuration(place: Place, setting: Setting, folder: Path) -> Any:
    """The package's configuration of a setting, with all that it writes below ``folder``."""
    from hydra import compose, initialize_config_dir

    from piebench_masks.cli import CONF

    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", overrides(place, setting, folder))


def overrides(place: Place, setting: Setting, folder: Path) -> list[str]:
    """The package's command line of a setting."""
    cuts = setting.cuts()
    model = {
        "id": place.model,
        "dtype": place.dtype,
        "vae_dtype": place.vae_dtype,
        "compile": str(place.compiled).lower(),
    }
    return [
        f"mask=[{','.join(cuts)}]",
        *(f"mask.{name}.sweep=[{c[0]},{c[-1]},{len(c)}]" for name, c in cuts.items()),
        *(f"mask.{name}.threshold={c[0]}" for name, c in cuts.items()),
        *(f"model.{name}={value}" for name, value in model.items()),
        "thresholds=sweep",
        "baselines=[]",
        "compat=reference",
        "tracker=none",
        f"limit={setting.samples}",
        f"device={place.device}",
        f"dataset.root={place.data}",
        f"dataset.load.mask_size={place.size}",
        f"dataset.load.border={place.border}",
        f"metrics.clip.model=local-dir:{place.clip}",
        f"metrics.lpips.backbone={place.lpips}",
        f"artifacts_dir={folder / 'artifacts'}",
        f"results_dir={folder / 'results'}",
        *place.options,
    ]
