"""Candidate boxes together and one at a time: `python benchmarks/regions.py`.

What `mask=regions_shapes` paints and scores of one sample, with the miniature's networks, in one
process of one thread: see README.md.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from findings import RESULTS, Finding, Sheet, about, publish
from flows import be_quiet
from hydra import compose, initialize_config_dir
from rich.console import Console
from samples import SHAPES_SIZE, write_samples
from torch import Tensor

from piebench_masks.cli import CONF
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.editor import Sources
from piebench_masks.editing.inpaint import Inpaint
from piebench_masks.masks.region_search import Search
from piebench_masks.run import Run
from piebench_masks.stages.latents import load_sources, posteriors
from piebench_masks.stages.parse import parse

METHOD = "regions_shapes"
SEED = 0
CLOSE = 1
"""Levels by which pictures of blocks of different sizes may differ."""


@dataclass(frozen=True)
class Plan:
    """How much is measured; seconds are the least of ``repeats``."""

    points: int
    half_sizes: tuple[int, ...]
    repeats: int


FULL = Plan(points=9, half_sizes=(1, 2, 3, 4), repeats=3)
QUICK = Plan(points=2, half_sizes=(2, 3), repeats=1)


@dataclass(frozen=True)
class Taken:
    """By one sample's candidates: U-Net rows, and seconds of each part."""

    rows: int
    painting: float
    scoring: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four boxes, to see it run")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--output", type=Path, default=RESULTS / "regions.json")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    be_quiet()
    with tempfile.TemporaryDirectory() as folder:
        sheets, raw = compare(plan, Path(folder))
    publish(options.output, about(plan=asdict(plan)), sheets, raw, markdown=options.markdown)


def compare(plan: Plan, folder: Path) -> tuple[list[Sheet], dict[str, Any]]:
    """The table, and all that was measured for it."""
    write_samples(folder / "data", size=SHAPES_SIZE, per_type=1)
    run = miniature(folder)
    sample = parse(run, Console(quiet=True)).samples[1]  # its object changes
    loaded = load_sources(run, [sample], encoded=True)
    sources = Sources([source.scene for source in loaded], posteriors(run, loaded))
    together = run.methods[METHOD].candidates
    assert isinstance(together, Search)
    painter = together.painter
    assert isinstance(painter, Inpaint)
    boxes = replace(together.boxes, points=plan.points, half_sizes=plan.half_sizes)
    together = replace(together, boxes=boxes)
    # Blocks of the two rows of guidance: nothing is padded.
    alone = replace(together, painter=replace(painter, rows=2))
    _, masks = boxes.placed(sources.scenes[0].image, run.device)
    parts = {
        "together": (together, [masks.flatten(0, 1)]),
        "alone": (alone, masks.flatten(0, 1).split(1)),
    }
    taken: dict[str, list[Taken]] = {name: [] for name in parts}
    edits: dict[str, Tensor] = {}
    for turn in range(1 + plan.repeats):  # the first warms up
        for name, (search, sets) in parts.items():
            edits[name], one = measured(run.backbone, search, sources, sets)
            taken[name] += [one] * (turn > 0)
    difference = (edits["together"].int() - edits["alone"].int()).abs().max().item()
    if difference > CLOSE:
        raise RuntimeError(f"pictures of boxes together and alone differ by {difference} levels")
    return [sheet_of(boxes.count, taken)], {
        name: [asdict(one) for one in of] for name, of in taken.items()
    } | {"levels off": difference}


def miniature(folder: Path) -> Run:
    overrides = (
        *(f"mask=[{METHOD}]", "baselines=[]", "editor=[]", "tracker=none", "device=cpu"),
        *("threads=1", f"dataset.root={folder / 'data'}"),
        *(f"artifacts_dir={folder / 'artifacts'}", f"results_dir={folder / 'results'}"),
    )
    with initialize_config_dir(CONF, version_base="1.3"):
        return Run(compose("config", list(overrides)))


@torch.no_grad()
def measured(
    backbone: Backbone, search: Search, sources: Sources, sets: Sequence[Tensor]
) -> tuple[Tensor, Taken]:
    """The edits under all sets of masks, and what they took."""
    (scene,) = sources.scenes
    rows, painting, scoring = backbone.counts["unet_rows"], 0.0, 0.0
    edits = []
    for masks in sets:
        started = time.perf_counter()
        edits.append(search.paint(backbone, sources, masks))
        painted = time.perf_counter()
        search.losses(scene, edits[-1], backbone.device, SEED)
        painting, scoring = painting + painted - started, scoring + time.perf_counter() - painted
    return torch.cat(edits), Taken(backbone.counts["unet_rows"] - rows, painting, scoring)


def sheet_of(boxes: int, taken: dict[str, list[Taken]]) -> Sheet:
    def finding(what: str, values: dict[str, float], unit: str) -> Finding:
        return Finding(what, values["alone"], values["together"], unit)

    def least(part: str) -> dict[str, float]:
        return {name: min(getattr(one, part) for one in of) for name, of in taken.items()}

    findings = [
        finding("U-Net rows", least("rows"), ""),
        finding("painting", least("painting"), "s"),
        finding("scoring", least("scoring"), "s"),
    ]
    sheet = Sheet.of(f"{boxes} candidate boxes of one sample", findings)
    return replace(sheet, columns=("What", "One at a time", "Together", "Ratio", "To reach"))


if __name__ == "__main__":
    main()
