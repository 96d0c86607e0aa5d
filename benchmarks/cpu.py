"""The package against the reference's flow on the shapes miniature: `python benchmarks/cpu.py`.

Every comparison is made in one run on the same samples, each flow in a process of its own, which
this one stays too small to disturb (no torch here): see README.md for what is measured.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from findings import RESULTS, Finding, Sheet, about, publish
from flows import Flow, Measured, Place, Setting, in_child, measure_all, overrides
from samples import SHAPES_SIZE, write_samples

from piebench_masks.weights import packaged

FLOWS: tuple[Flow, ...] = ("reference", "project")
PAPER_SIZE, PAPER_NOISE_GRID = 512, 64
QUICK_PHASES = ("maps", "segmentation scores")

Pair = tuple[Measured, Measured]
"""The reference's and the package's."""


@dataclass(frozen=True)
class Plan:
    """How much is measured; ``repeats`` of what is over quickly."""

    samples: int
    thresholds: int
    repeats: int
    paper_size_samples: int
    grown_samples: tuple[int, ...]
    grown_thresholds: tuple[int, ...]
    grown_methods: tuple[int, ...]


FULL = Plan(8, 21, 3, 4, (2, 4, 8), (1, 7, 21), (1, 2, 3))
QUICK = Plan(1, 2, 1, 1, (1,), (1,), (1,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one or two samples, to see it run")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu.json")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        sheets, raw = compare(plan, Path(folder))
    publish(options.output, about(plan=asdict(plan)), sheets, raw, markdown=options.markdown)


def compare(plan: Plan, folder: Path) -> tuple[list[Sheet], dict[str, Any]]:
    """All tables, and all that was measured for them."""
    small, large = shapes(folder / "small", SHAPES_SIZE), shapes(folder / "large", PAPER_SIZE)
    large = replace(large, border=1, noise_grid=PAPER_NOISE_GRID)
    whole = Setting(plan.samples, plan.thresholds)
    quick = replace(whole, phases=QUICK_PHASES, repeats=plan.repeats)
    paper = replace(quick, samples=plan.paper_size_samples)
    fixed = Setting(plan.samples, 1, unmasked=True)
    grown = growth(plan)

    # The whole run first: a process's peak of memory never falls.
    at_64, (at_512,) = both([(small, [whole, quick, fixed, *grown.values()]), (large, [paper])])
    once, repeated, one_mask, *growing = at_64
    command = complete_command(small, whole, folder)
    sheets = {
        f"Work for a sample, {plan.thresholds} thresholds of 3 methods": work(once, plan),
        "Seconds a sample": seconds(once, repeated, at_512, plan),
        "Fixed thresholds: one mask a method, and the edit without a mask": [
            compared("U-Net rows", one_mask, asked(plan.samples, "unet_rows"), "", to_reach=1.6),
            compared("seconds a sample", one_mask, a_sample(plan.samples), to_reach=1.6),
        ],
        f"A run over {plan.samples} samples": run(once, command),
        "Seconds a sample as a run grows": [
            compared(what, pair, a_sample(setting.samples))
            for (what, setting), pair in zip(grown.items(), growing, strict=True)
        ],
    }
    raw = {"whole": once, "repeated": repeated, "fixed": one_mask, "paper size": at_512}
    raw |= dict(zip(grown, growing, strict=True))
    return [Sheet.of(*sheet) for sheet in sheets.items()], {
        name: dict(zip(FLOWS, map(asdict, pair), strict=True)) for name, pair in raw.items()
    }


def shapes(data: Path, size: int) -> Place:
    """The embedded default with pictures and annotations of that side."""
    write_samples(data, size=size, per_type=1)
    lpips = Path(packaged("lpips_shapes")) / "features.safetensors"
    model, clip = Path(packaged("shapes_turbo")), Path(packaged("clip_shapes"))
    return Place(data=data, size=size, border=0, model=model, clip=clip, lpips=lpips)


def both(jobs: Sequence[tuple[Place, Sequence[Setting]]]) -> list[list[Pair]]:
    reference, project = (in_child(measure_all, flow, jobs) for flow in FLOWS)
    return [list(zip(*pair, strict=True)) for pair in zip(reference, project, strict=True)]


def growth(plan: Plan) -> dict[str, Setting]:
    """What grows, one at a time: samples and methods at the middle number of thresholds."""
    few = plan.grown_samples[0]
    middle = plan.grown_thresholds[len(plan.grown_thresholds) // 2]
    settings = [
        *(Setting(samples, middle) for samples in plan.grown_samples),
        *(Setting(few, thresholds) for thresholds in plan.grown_thresholds),
        *(Setting(few, middle, methods) for methods in plan.grown_methods),
    ]
    return {
        f"samples {s.samples}, thresholds {s.thresholds}, methods {s.methods}": s for s in settings
    }


def complete_command(place: Place, setting: Setting, folder: Path) -> float:
    """Seconds of `piebench-masks` from the shell, all stages: start, loading and report as well."""
    command = "from piebench_masks.cli import main; main()"
    arguments = overrides(place, setting, folder / "command")
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", command, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
    )
    return time.perf_counter() - started


def compared(
    what: str,
    pair: Pair,
    value: Callable[[Measured], float],
    unit: str = "s",
    to_reach: float | None = None,
) -> Finding:
    reference, project = pair
    return Finding(what, value(reference), value(project), unit, to_reach)


def a_sample(samples: int, *phases: str) -> Callable[[Measured], float]:
    """Seconds of these phases (none: all) for one of the samples."""
    return lambda m: sum(m.seconds[phase] for phase in phases or m.seconds) / samples


def asked(samples: int, what: str, *phases: str) -> Callable[[Measured], float]:
    """Network rows of these phases (none: all) for one of the samples."""
    return lambda m: sum(m.counts[phase].get(what, 0) for phase in phases or m.counts) / samples


def work(once: Pair, plan: Plan) -> list[Finding]:
    """What the networks are asked for one sample."""
    n = plan.samples
    return [
        compared("U-Net rows, maps", once, asked(n, "unet_rows", "maps"), ""),
        compared("U-Net rows, edits", once, asked(n, "unet_rows", "edits"), "", to_reach=2.2),
        compared("VAE encodes", once, asked(n, "vae_encodes"), ""),
        compared("VAE decodes", once, asked(n, "vae_decodes"), ""),
        compared("prompt encodes", once, asked(n, "prompt_encodes"), ""),
    ]


def seconds(once: Pair, repeated: Pair, at_512: Pair, plan: Plan) -> list[Finding]:
    """For one sample; what is over quickly from the repeated runs, the rest from the whole one."""
    n, scores = plan.samples, "segmentation scores"
    return [
        compared("maps", repeated, a_sample(n, "maps"), to_reach=3.0),
        compared("edits", once, a_sample(n, "edits"), to_reach=4.0),
        compared(f"{scores}, {SHAPES_SIZE}x{SHAPES_SIZE}", repeated, a_sample(n, scores)),
        compared(
            f"{scores}, {PAPER_SIZE}x{PAPER_SIZE}",
            at_512,
            a_sample(plan.paper_size_samples, scores),
        ),
        Finding(
            f"of them the reference's eight, {PAPER_SIZE}x{PAPER_SIZE}",
            at_512[0].seconds[scores] / plan.paper_size_samples,
            at_512[1].ratio_seconds / plan.paper_size_samples,
            "s",
            to_reach=50.0,
        ),
        compared("editing scores", once, a_sample(n, "editing scores"), to_reach=5.0),
        compared("whole pipeline", once, a_sample(n), to_reach=4.0),
    ]


def run(once: Pair, command: float) -> list[Finding]:
    """Nothing cached, everything cached (of which the reference knows nothing), memory."""
    reference, project = once
    return [
        compared("nothing cached", once, lambda m: m.total),
        Finding("the same again, all cached", reference.total, project.cached_seconds, "s"),
        Finding("from the shell: start, loading and report as well", None, command, "s"),
        compared("peak memory", once, lambda m: m.peak_mib, "MiB"),
        compared("of it after loading and one sample", once, lambda m: m.warm_mib, "MiB"),
    ]


if __name__ == "__main__":
    main()
