"""All methods' maps beside the first edition's four: `python benchmarks/methods.py`.

U-Net rows and seconds of the embedded default in one process of one thread, and the memory of
recorded attention at SDXL's size: see README.md for what is measured and what is counted.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from counted import Counted, counted
from diffusers import UNet2DConditionModel
from findings import RESULTS, Sheet, about, publish, shown
from flows import be_quiet, device_mib
from hydra import compose, initialize_config_dir
from random_sdxl import UNET, write_pipeline
from rich.console import Console
from samples import SHAPES_SIZE, write_samples

from piebench_masks.cli import CONF
from piebench_masks.data.sample import Sample
from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.diffusion.unet import parts
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import METHODS, MapMethod
from piebench_masks.masks.soft_maps import SoftMaps, needs_model, soft_maps
from piebench_masks.run import Run
from piebench_masks.stages.latents import posteriors
from piebench_masks.stages.maps import Maps
from piebench_masks.stages.parse import parse
from piebench_masks.stages.stage import Work

FIRST_EDITION = ("ours", "attn_based", "noise_based", "diffedit")
PROPAGATED = ("ours_self", "diffedit_self")
ALL = (*(name for name, method in METHODS.items() if needs_model({name: method})), *PROPAGATED)
FOUR_NAME, ALL_NAME = "the first edition's four", f"all {len(ALL)}"
SETS = {FOUR_NAME: FIRST_EDITION, ALL_NAME: ALL, **{name: (name,) for name in ALL}}
"""The methods whose maps are made together."""
AT_MOST = 1.6
MIB = 2**20


@dataclass(frozen=True)
class Plan:
    """How much is measured; seconds are the least of ``repeats``."""

    samples: int
    repeats: int


FULL = Plan(samples=8, repeats=3)
QUICK = Plan(samples=1, repeats=1)


@dataclass(frozen=True)
class Taken:
    """By the maps of one sample: U-Net rows, and the seconds of each repeat."""

    rows: float
    repeats: tuple[float, ...]

    @property
    def seconds(self) -> float:
        return min(self.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one sample, to see it run")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--output", type=Path, default=RESULTS / "methods.json")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    be_quiet()
    with tempfile.TemporaryDirectory() as folder:
        sheets, raw = compare(plan, Path(folder))
    publish(options.output, about(plan=asdict(plan)), sheets, raw, markdown=options.markdown)
    held, block = raw["self-attention rows held"], raw["model"]["rows"]
    if held > block:
        sys.exit(f"the self-attention of {held} rows is held at once, of blocks of {block}")


def compare(plan: Plan, folder: Path) -> tuple[list[Sheet], dict[str, Any]]:
    """All tables, and all that was measured and counted for them."""
    write_samples(folder / "data", size=SHAPES_SIZE, per_type=1)
    stage, work = maps_stage(plan, folder)
    taken = measure(stage, work, plan.repeats)
    scenes = [source.scene for source in stage.load(work)[0]]
    model = configuration("model=sdxl_turbo").model
    sizes = {"rows": model.rows, "map_size": model.map_size}
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNET)
    sets = {name: {one: stage.run.methods[one] for one in names} for name, names in SETS.items()}
    memory = {
        name: counted(unet, stage.run.backbone, scenes, list(methods.values()), **sizes)
        for name, methods in sets.items()
    }
    peaks: dict[str, float] = {}
    if torch.cuda.is_available():
        write_pipeline(folder / "sdxl", tiny=False, device="cuda", dtype=torch.float32)
        large = load_backbone(folder / "sdxl", device="cuda", **sizes)
        peaks = device_peaks(large, scenes, sets)
    held = max(each.self_attention_rows for each in memory.values())
    sheets = [
        together_sheet(taken, plan),
        alone_sheet(taken, plan),
        memory_sheet(memory, peaks, plan, model.rows),
        held_sheet(held, model.rows),
    ]
    return sheets, {
        "taken": {name: asdict(each) for name, each in taken.items()},
        "memory": {name: asdict(each) for name, each in memory.items()},
        "device": torch.cuda.get_device_name() if peaks else None,
        "device MiB": peaks,
        "self-attention rows held": held,
        "model": {**sizes, "layers": layers_of(unet)},
    }


def configuration(*overrides: str) -> Any:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", list(overrides))


def maps_stage(plan: Plan, folder: Path) -> tuple[Maps, list[Work]]:
    """The embedded default's maps of all methods, its pictures encoded; one thread from here on."""
    cfg = configuration(
        *(f"mask=[{','.join(ALL)}]", "baselines=[]", "editor=[]", "tracker=none"),
        *("device=cpu", "threads=1", f"limit={plan.samples}", f"dataset.root={folder / 'data'}"),
        *(f"artifacts_dir={folder / 'artifacts'}", f"results_dir={folder / 'results'}"),
    )
    run = Run(cfg)
    samples = parse(run, Console(quiet=True)).samples
    stage, work = Maps(run, samples), all_work(samples, ALL)
    posteriors(run, stage.load(work)[0])
    return stage, work


def all_work(samples: Sequence[Sample], names: Sequence[str]) -> list[Work]:
    return [Work(sample, tuple(names)) for sample in samples]


def measure(stage: Maps, work: Sequence[Work], repeats: int) -> dict[str, Taken]:
    """What every set takes, after one computation of all to warm up.

    The sets take turns, so that whatever else the machine does falls on all of them.
    """
    samples = [each.sample for each in work]
    once(stage, samples, ALL)
    taken: dict[str, Taken] = {}
    for _ in range(repeats):
        for name, names in SETS.items():
            rows, seconds = once(stage, samples, names)
            before = taken[name].repeats if name in taken else ()
            taken[name] = Taken(rows, (*before, seconds))
    return taken


def once(stage: Maps, samples: Sequence[Sample], names: Sequence[str]) -> tuple[float, float]:
    """U-Net rows and seconds a sample, by a model that remembers no prompt."""
    run, work = stage.run, all_work(samples, names)
    vars(run).pop("backbone", None)
    backbone, loaded = run.backbone, stage.load(work)
    started = time.perf_counter()
    maps = stage.compute(work, loaded)
    seconds = time.perf_counter() - started
    check(maps)
    return backbone.counts["unet_rows"] / len(samples), seconds / len(samples)


def check(maps: SoftMaps) -> None:
    """Raise RuntimeError if a map is missing: a comparison needs all of them."""
    for name, results in maps.items():
        for result in results:
            if isinstance(result, BenchmarkError):
                raise RuntimeError(f"{name}: {result}")


def device_peaks(
    backbone: Backbone, scenes: Sequence[Scene], sets: Mapping[str, Mapping[str, MapMethod]]
) -> dict[str, float]:
    """MiB of a CUDA device that each set takes at its most, beside what is there before."""
    noise = torch.randn(len(scenes), 4, *[backbone.latent_size] * 2, device=backbone.device)
    posterior = Posterior(noise, torch.ones_like(noise))
    peaks = {}
    for name, methods in sets.items():
        before = 0.0
        if backbone.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() / MIB
        check(soft_maps(backbone, posterior, scenes, methods))
        peaks[name] = device_mib() - before
    return peaks


def layers_of(unet: Any) -> list[dict[str, Any]]:
    """How many attention layers of each kind, grid and number of heads there are."""
    found = Counter(
        (layer.kind, layer.grid, unet.get_submodule(name.removesuffix(".processor")).heads)
        for name, layer in parts(unet)[0].items()
    )
    names = ("kind", "grid", "heads", "layers")
    return [dict(zip(names, (*what, count), strict=True)) for what, count in found.items()]


def together_sheet(taken: Mapping[str, Taken], plan: Plan) -> Sheet:
    four, everything = taken[FOUR_NAME], taken[ALL_NAME]
    compared = {
        "U-Net rows a sample": (four.rows, everything.rows, ""),
        "seconds a sample": (four.seconds, everything.seconds, "s"),
    }
    figures = [
        {"what": what, "four": one, "all": other, "ratio": other / one, "at_most": AT_MOST}
        for what, (one, other, _) in compared.items()
    ]
    rows = [
        [what, shown(one, unit), shown(other, unit), shown(other / one, "x"), shown(AT_MOST, "x")]
        for what, (one, other, unit) in compared.items()
    ]
    title = f"Maps by all {len(ALL)} methods that ask the U-Net, {plan.samples} samples"
    return Sheet(title, ("What", "First edition's four", "All", "Ratio", "At most"), rows, figures)


def alone_sheet(taken: Mapping[str, Taken], plan: Plan) -> Sheet:
    figures = [
        {"method": name, "rows": taken[name].rows, "seconds": taken[name].seconds} for name in ALL
    ]
    rows = [[name, shown(taken[name].rows, ""), shown(taken[name].seconds, "s")] for name in ALL]
    title = f"Each method alone, {plan.samples} samples"
    return Sheet(title, ("Method", "U-Net rows a sample", "Seconds a sample"), rows, figures)


def memory_sheet(
    memory: Mapping[str, Counted], peaks: Mapping[str, float], plan: Plan, block: int
) -> Sheet:
    """One line a set, in MiB; what was not measured has no figure."""
    columns = (
        *("Methods", "Recorded rows a sample", "A row keeps at most"),
        *(f"Kept of {plan.samples} samples", "Largest temporary", "Attention of it"),
        *(f"Attention of {block} rows", "Device, at its most"),
    )
    values = {
        name: (
            each.recorded / plan.samples,
            each.row_kept / MIB,
            each.kept / MIB,
            each.temporary / MIB,
            each.attention / MIB,
            each.of_block / MIB,
            peaks.get(name),
        )
        for name, each in memory.items()
    }
    rows = [[name, *(shown(value, "") for value in line)] for name, line in values.items()]
    figures = [dict(zip(columns, (name, *line), strict=True)) for name, line in values.items()]
    title = f"MiB of recorded attention: SDXL, 512x512, float32, blocks of {block} rows"
    return Sheet(title, columns, rows, figures)


def held_sheet(held: int, block: int) -> Sheet:
    what = "rows whose self-attention is held before it is reduced"
    figures = [{"what": what, "held": held, "at_most": block}]
    return Sheet(
        "Self-attention, row by row",
        ("What", "Held", "At most"),
        [[what, str(held), str(block)]],
        figures,
    )


if __name__ == "__main__":
    main()
