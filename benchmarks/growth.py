"""Whether CPU seconds and memory of parse, score and report grow in proportion to the samples.

``python benchmarks/growth.py [--samples 2500 5000 10000 20000]`` makes data sets of synthetic
samples with stored maps and made-up edit scores, runs the stages on each in a process of its own,
and prints what every stage took. Exit status 1 where something grows faster than the samples or
takes more than 2 GB.
"""

import argparse
import io
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.pie_bench import EDIT_TYPES
from piebench_masks.data.rle import encode_runs
from piebench_masks.data.sample import Sample
from piebench_masks.executors.local import in_process
from piebench_masks.publish import report
from piebench_masks.run import Run
from piebench_masks.runner import Outcome, run_stage
from piebench_masks.stages.maps import map_folder, map_name
from piebench_masks.stages.masks import Cuts
from piebench_masks.stages.parse import parse
from piebench_masks.stages.score_edits import edit_score_folder, score_item
from piebench_masks.stages.score_masks import MaskScores
from piebench_masks.stages.stage import Stage
from piebench_masks.stages.variants import Variants, distinct

SIDE = 64
LIMIT = 2 * 1024**3
FASTER = 1.2
"""The exponent from which a growth counts as faster than linear; small parts do not scale."""
SOON = 2.0
"""Seconds under which the clock says too little to judge a stage by."""


def write_data(root: Path, count: int, pictures: int = 50) -> None:
    """A PIE-Bench folder of ``count`` entries, which share some pictures."""
    draw = np.random.default_rng(0)
    images = root / "annotation_images"
    images.mkdir(parents=True)
    for number in range(pictures):
        pixels = draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    mapping = {}
    for number in range(count):
        mask = np.zeros((SIDE, SIDE), bool)
        top, left = draw.integers(0, SIDE // 2, 2)
        mask[top : top + 20, left : left + 30] = True
        mapping[f"{number:06d}"] = {
            "image_path": f"{number % pictures}.png",
            "original_prompt": f"a red circle of number {number}",
            "editing_prompt": f"a blue circle of number {number}",
            "editing_instruction": "",
            "editing_type_id": str(number % len(EDIT_TYPES)),
            "blended_word": "",
            "mask": encode_runs(mask),
        }
    (root / "mapping_file.json").write_text(json.dumps(mapping))


def new_run(root: Path, *others: str) -> Run:
    overrides = [
        *("mask=[ours]", "baselines=[full,oracle]", "tracker=none", "name=growth", "device=cpu"),
        *(f"dataset.root={root}/data", f"artifacts_dir={root}/artifacts", "threads=1"),
        *(f"results_dir={root}/results", *others),
    ]
    with initialize_config_dir(CONF, version_base="1.3"):
        return Run(compose("config", overrides))


def write_maps(run: Run, samples: Sequence[Sample]) -> None:
    """A random soft map of every sample and method."""
    draw = torch.Generator().manual_seed(0)
    for name in run.methods:
        folder = map_folder(run, name)
        for sample in samples:
            soft_map = torch.rand(16, 16, generator=draw)
            folder.write_tensors(map_name(run, name, sample), {"map": soft_map})


def score(run: Run, samples: Sequence[Sample]) -> None:
    compute(run, MaskScores(run, samples))


def compute(run: Run, stage: Stage) -> None:
    with in_process(run) as executor:
        run_stage(
            stage,
            executor,
            batch_size=8,
            overwrite=run.overwrite,
            fail_on_error=True,
            console=Console(file=io.StringIO()),
        )


def write_edit_scores(run: Run, samples: Sequence[Sample]) -> None:
    """Made-up rows of every distinct edit, in as many parts as batches."""
    draw, variants = np.random.default_rng(0), Variants(run)
    for name in ("lpips", "clip"):
        columns = run.scorers[name].metric.columns
        folder = edit_score_folder(run, "turbo_edit", name)
        for start in range(0, len(samples), 8):
            folder.append_rows(
                [
                    {"item": score_item(run, sample, "turbo_edit", name), "mask": variant.name}
                    | dict(zip(columns, draw.random(len(columns)).tolist(), strict=True))
                    for sample in samples[start : start + 8]
                    for variant in distinct(variants.of(sample, "turbo_edit"))
                ]
            )
        folder.compact(["item", "mask"])


def stages(root: Path, measure: Callable[[str, Callable[[], object]], None]) -> None:
    """Everything that is done for ``root``'s data; what is measured is given to ``measure``."""
    quiet = Console(file=io.StringIO())
    run, samples = new_run(root), list[Sample]()
    measure("parse", lambda: samples.extend(parse(run, quiet).samples))
    measure("parsed", lambda: parse(run, quiet))
    write_maps(run, samples)
    measure("cut", lambda: compute(run, Cuts(run, samples)))
    measure("score", lambda: score(run, samples))
    measure("scored", lambda: score(run, samples))
    write_edit_scores(run, samples)
    measure("report", lambda: report(run, samples, Outcome(), quiet))


def one(count: int) -> dict[str, list[float]]:
    """For each stage seconds and the peak of memory so far, of ``count`` samples."""
    found: dict[str, list[float]] = {}

    def measure(name: str, work: Callable[[], object]) -> None:
        started = time.process_time()
        work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found[name] = [time.process_time() - started, peak]

    with tempfile.TemporaryDirectory() as place:
        write_data(Path(place) / "data", count)
        stages(Path(place), measure)
    return found


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--samples", type=int, nargs="+", default=[2500, 5000, 10000, 20000])
    arguments.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        print(json.dumps(one(given.one)))
        return 0
    found = {}
    for count in given.samples:
        command = [sys.executable, __file__, "--one", str(count)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found[count] = json.loads(done.stdout.splitlines()[-1])
        row = "  ".join(f"{name} {took:.1f} s" for name, (took, _) in found[count].items())
        peak = max(peak for _, peak in found[count].values())
        print(f"{count:>6} samples: {row}  peak {peak / 1e6:.0f} MB", flush=True)
    first, last = given.samples[0], given.samples[-1]
    worse = False
    for name in found[first]:
        grown = found[last][name][0] / found[first][name][0]
        exponent = math.log(grown) / math.log(last / first)
        faster = exponent > FASTER and found[last][name][0] > SOON
        worse |= faster
        print(f"{name}: samples^{exponent:.2f}, {'not ' * faster}linear")
    peak = max(peak for _, peak in found[last].values())
    print(f"peak {peak / 1e6:.0f} MB, {'more' if peak > LIMIT else 'less'} than 2 GB")
    return int(worse or peak > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
