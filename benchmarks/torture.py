"""Real processes that are killed, starved and lied to, and whether their tables come out the same.

``python benchmarks/torture.py [fault ...] [--kills 15] [--worker-kills 15] [--seed 0]`` runs the
benchmark on four scenes under every fault, prints how often it was tried and survived, and exits
with 1 where anything was lost. Every run is a process of its own, forked from this one, which has
imported everything and started no thread.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

import piebench_masks.cli
import piebench_masks.executors.local
import piebench_masks.pipeline
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.diffusion.backbone import Posterior
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.report.finished import MEASURED
from piebench_masks.run import Run
from piebench_masks.stages.edit import Edit
from piebench_masks.stages.latents import Source, posteriors
from piebench_masks.stages.maps import Maps
from piebench_masks.stages.stage import Batch, Stage
from piebench_masks.store import Folder
from piebench_masks.weights import packaged

OVERRIDES = (
    *("tracker=none", "limit=4", "batch_size=1", "threads=1", "device=cpu", "name=run"),
    *("mask=[ours,noise_based]", "baselines=[full]", "thresholds=3"),
)
TABLES = "mask_scores.parquet", "edit_scores.parquet", "tables/*.csv"
TWO = "devices=[cpu,cpu]"
DAMAGED = {
    "samples": "parse/*/samples.parquet",
    "latents": "latents/*/*.safetensors",
    "map": "maps/*/*.safetensors",
    "edit": "edit/*/*/*.png",
    "costs": "edit/*/rows.parquet",
    "masks": "masks/*/rows.parquet",
    "mask rows": "mask_scores/*/rows.parquet",
    "edit rows": "edit_scores/*/rows.parquet",
    "part": "edit_scores/*/parts/*.jsonl",
    "description": "maps/*/stage.json",
    "columns": "edit_scores/*/columns.json",
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: bytes(len(data)),
    "one bit flipped": lambda data: _flipped(data, 40),
}
REFUSED = "torture: memory refused"
"""Printed by a run whose fault has fired."""
Tables = dict[str, bytes]
Change = Callable[[], None]


def _flipped(data: bytes, place: int) -> bytes:
    # Of a JSON file a place in what matters, else one in the middle of the contents.
    place = place if data[:1] == b"{" or len(data) < 2 * place else len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


class Place:
    """A folder with artifacts and results, and the runs in it."""

    def __init__(self, root: Path, data: Path) -> None:
        self.root, self.data = root, data
        self.artifacts, self.results = root / "artifacts", root / "results" / "run"
        self.log = root / "log.txt"
        root.mkdir(parents=True, exist_ok=True)

    def start(self, *overrides: str, change: Change | None = None) -> int:
        """A run as a process of its own, in a session of its own; returns its id."""
        arguments = [
            *OVERRIDES,
            *(f"dataset.root={self.data}", f"artifacts_dir={self.artifacts}"),
            *(f"results_dir={self.root}/results", *overrides),
        ]
        sys.stdout.flush()
        if pid := os.fork():
            return pid
        status = 70
        try:
            os.setsid()
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if change is not None:
                change()
            sys.argv = ["piebench-masks", *arguments]
            piebench_masks.cli.main()
            status = 0
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, flush=True)
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
            os._exit(status)

    def run(self, *overrides: str, change: Change | None = None) -> int:
        """The exit status of a run that is left alone."""
        return ended(self.start(*overrides, change=change))

    def tables(self) -> Tables:
        found = [path for pattern in TABLES for path in sorted(self.results.glob(pattern))]
        # Seconds are measured, and differ.
        return {path.name: path.read_bytes() for path in found if path.stem not in MEASURED}

    def files(self) -> dict[str, tuple[int, int]]:
        """Every finished file by its place, with what changes when it is written again."""
        found = {}
        for top in (self.artifacts, self.results):
            for folder, _, names in os.walk(top):
                for name in names:
                    if name.startswith("~") or name == "run.log":
                        continue
                    with suppress(OSError):
                        stat = Path(path := f"{folder}/{name}").stat()
                        found[path] = (stat.st_mtime_ns, stat.st_ino)
        return found

    def disturbed(
        self, new: int, disturb: Callable[[int], None], *overrides: str
    ) -> tuple[int, str]:
        """A run that is disturbed once it has written so many files: exit status, stage then.

        The stage is "" where it ended before.
        """
        before = set(self.files().items())
        pid = self.start(*overrides)
        while True:
            written = set(self.files().items()) - before
            if len(written) >= new:
                latest = Path(max(written, key=lambda file: file[1][0])[0])
                inside = latest.is_relative_to(self.artifacts)
                disturb(pid)
                stage = latest.relative_to(self.artifacts).parts[0] if inside else "report"
                return ended(pid), stage
            over, status = os.waitpid(pid, os.WNOHANG)
            if over:
                return os.waitstatus_to_exitcode(status), ""
            time.sleep(0.002)

    def copy(self, name: str) -> "Place":
        other = Place(self.root.parent / name, self.data)
        shutil.copytree(self.artifacts, other.artifacts)
        return other


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_main(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_worker(pid: int) -> None:
    """One of its worker processes; it itself where there is none yet."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    workers = [c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    kill_main(int(workers[0]) if workers else pid)


class Torture:
    """All faults, and what has become of them; a try is survived where the tables are the same."""

    def __init__(self, root: Path, kills: int, worker_kills: int, seed: int) -> None:
        self.kills, self.worker_kills, self.seed = kills, worker_kills, seed
        self.tried: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()
        self.notes: dict[str, str] = {}
        self.data = root / "data"
        write_shapes(self.data, per_type=1)
        self.root = root
        self.good = Place(root / "undisturbed", self.data)
        if self.good.run() != 0:
            sys.exit(f"the undisturbed run failed:\n{self.good.log.read_text()}")
        self.expected = self.good.tables()
        assert len(self.expected) > 5

    def place(self, name: str) -> Place:
        return Place(self.root / name, self.data)

    def count(self, fault: str, survived: bool, place: Place, what: str = "") -> None:
        self.tried[fault] += 1
        self.survived[fault] += survived
        if not survived:
            print(f"LOST: {fault} {what}\n{place.log.read_text()[-3000:]}", flush=True)

    def same(self, place: Place) -> bool:
        return place.tables() == self.expected

    def _killed(
        self, fault: str, tries: int, most: int, disturb: Callable[[int], None], *overrides: str
    ) -> None:
        """Kill at random places of a run until it ends, and of the next, so many times."""
        draw, stages, number = Random(f"{fault}/{self.seed}"), Counter[str](), 0
        while (done := stages.total()) < tries:
            place, sound = self.place(f"killed-{number}"), True
            number += 1
            while stages.total() < tries:
                status, stage = place.disturbed(draw.randint(1, most), disturb, *overrides)
                if stage:
                    stages[stage] += 1
                if not stage or status == 0:
                    break
                sound &= status == -signal.SIGKILL
            sound &= place.run() == 0 and self.same(place)
            for _ in range(max(stages.total() - done, not sound)):
                self.count(fault, sound, place)
            shutil.rmtree(place.root)
            if not sound:  # runs that fail at once would be tried for ever
                break
        self.notes[fault] = ", ".join(f"{count} in {name}" for name, count in stages.items())

    def kill_mains(self) -> None:
        self._killed("kill -9 of the process", self.kills, 25, kill_main)

    def kill_workers(self) -> None:
        half = self.worker_kills // 2
        self._killed("kill -9 of a worker", self.worker_kills - half, 25, kill_worker, TWO)
        self._killed("kill -9 of the workers' parent", half, 25, kill_main, TWO)

    def terminate(self) -> None:
        draw = Random(f"SIGTERM/{self.seed}")
        for number in range(3):
            place = self.place(f"terminated-{number}")
            status, _ = place.disturbed(
                draw.randint(5, 40), lambda pid: os.kill(pid, signal.SIGTERM)
            )
            sound = status == 143 and "Interrupted." in place.log.read_text()
            sound &= place.run() == 0 and self.same(place)
            self.count("SIGTERM", sound, place, f"exit {status}")

    def twice_at_once(self) -> None:
        for number in range(2):
            place = self.place(f"twice-{number}")
            both = [place.start(), place.start()]
            ends = [ended(pid) for pid in both]
            self.count("two runs at once", ends == [0, 0] and self.same(place), place, f"{ends}")

    def damaged(self) -> None:
        for how, damage in DAMAGES.items():
            for kind, pattern in DAMAGED.items():
                place = self.good.copy(f"{how}-{kind}".replace(" ", "-"))
                self._make_needed(kind, place.artifacts)
                path = sorted(place.artifacts.glob(pattern))[0]
                torn = damage(path.read_bytes())
                path.write_bytes(torn)
                sound = place.run() == 0 and self.same(place)
                if how != "one bit flipped":  # of which some change nothing that is read
                    sound &= not path.exists() or path.read_bytes() != torn
                self.count(f"a file {how}", sound, place, kind)
                shutil.rmtree(place.root)

    def _make_needed(self, kind: str, artifacts: Path) -> None:
        """Remove what would keep a file of this kind from being read."""
        if kind == "latents":
            for path in artifacts.glob(DAMAGED["map"]):
                path.unlink()
        if kind in ("edit", "part"):
            for path in list(artifacts.glob(DAMAGED["edit rows"])):  # of each metric
                rows = pd.read_parquet(path)
                path.unlink()
                if kind == "part":
                    folder = Folder(path.parent)
                    values = rows.astype(object).where(rows.notna(), None)
                    entries = [
                        {str(k): v for k, v in row.items()} for row in values.to_dict("records")
                    ]
                    for start in range(0, len(entries), 5):
                        folder.append_rows(entries[start : start + 5])

    def disk(self) -> None:
        size = sum(path.stat().st_size for path in self.good.artifacts.rglob("*"))
        for share in (0.05, 0.4, 0.8):
            place = self.place(f"full-{share}")
            with small_disk(place.artifacts, int(share * size)) as mounted:
                if not mounted:
                    self.notes["a full disk"] = "skipped: mounting is not permitted here"
                    return
                refused = place.run() == 1 and self._one_error(place, "free space")
                remount(place.artifacts, "size=64m")
                sound = refused and place.run() == 0 and self.same(place)
                self.count("a full disk", sound, place, f"at {share:.0%}")
                if share == 0.4:
                    for path in place.artifacts.glob(DAMAGED["map"]):
                        path.unlink()
                    remount(place.artifacts, "ro")
                    refused = place.run() == 1 and self._one_error(place, "allow writing")
                    remount(place.artifacts, "rw")
                    sound = refused and place.run() == 0 and self.same(place)
                    self.count("a read-only disk", sound, place)

    def _one_error(self, place: Place, words: str) -> bool:
        text = " ".join(place.log.read_text().split())
        place.log.unlink()
        return text.count("Error: ") == 1 and words in text and "Traceback" not in text

    def out_of_memory(self) -> None:
        fault, place = "out of memory", self.place("memory")
        sound = place.run(change=lambda: unet_takes(2)) == 0
        sound &= REFUSED in place.log.read_text()  # else the fault has not fired
        for name, column in zip(TABLES, ("average_precision", "psnr"), strict=False):
            ours, good = (pd.read_parquet(p.results / name) for p in (place, self.good))
            sound &= ours[["sample", "method"]].equals(good[["sample", "method"]])
            # Blocks of another size round differently.
            sound &= bool(np.allclose(ours[column], good[column], rtol=1e-3, equal_nan=True))
        self.count(fault, sound, place, "above two rows")
        place = self.place("memory-of-one")
        victim = self._victim()
        sound = place.run("fail_on_error=false", change=lambda: no_memory_for(victim)) == 1
        sound &= REFUSED in place.log.read_text()
        sound &= self._all_but(victim, place)
        self.count(fault, sound, place, "at one row of one sample")

    def not_a_number(self) -> None:
        fault, victim = "NaN from the model", self._victim()
        place = self.place("nan-sample")
        sound = place.run("fail_on_error=false", change=lambda: nan_latents_of(victim)) == 1
        self.count(fault, sound and self._all_but(victim, place), place, "one sample's latents")
        for part, layer in (("unet", "conv_out.weight"), ("vae", "decoder.conv_out.weight")):
            place = self.place(f"nan-{part}")
            model = place.root / "model"
            shutil.copytree(packaged("shapes_turbo"), model)
            spoil(next((model / part).glob("*.safetensors")), layer)
            status = place.run("fail_on_error=false", f"model.id={model}")
            painted = list(place.artifacts.glob(DAMAGED["edit"]))
            sound = status == 1 and not painted and len(self._failures(place)) > 0
            self.count(fault, sound, place, f"{part}, exit {status}, {len(painted)} edits")

    def _victim(self) -> str:
        return str(pd.read_parquet(self.good.results / "mask_scores.parquet")["sample"].iloc[0])

    def _failures(self, place: Place) -> list[dict[str, str]]:
        lines = (place.results / "failures.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def _all_but(self, victim: str, place: Place) -> bool:
        """Whether the victim alone failed, with a reason, and all others have their scores."""
        failures = self._failures(place)
        sound = {entry["sample_id"] for entry in failures} == {victim}
        sound &= all(entry["reason"] for entry in failures)
        for name in TABLES[:2]:
            ours, good = (pd.read_parquet(p.results / name) for p in (place, self.good))
            predicted = ours["method"].isin(["ours", "noise_based"])
            sound &= victim not in set(ours[predicted]["sample"])
            others = [frame[frame["sample"] != victim] for frame in (ours, good)]
            sound &= others[0].reset_index(drop=True).equals(others[1].reset_index(drop=True))
        return sound


def unet_takes(rows: int) -> None:
    """From here on the U-Net runs out of memory above so many rows."""
    load = StableDiffusion.from_folder

    def refuse(unet: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if len(arguments[0]) > rows:
            print(REFUSED, flush=True)
            raise torch.OutOfMemoryError(f"{len(arguments[0])} rows")

    def limited(*arguments: Any, **options: Any) -> StableDiffusion:
        backbone = load(*arguments, **options)
        backbone.unet.register_forward_pre_hook(refuse)
        return backbone

    patch.object(StableDiffusion, "from_folder", limited).start()


def no_memory_for(victim: str) -> None:
    """From here on whatever the victim is part of runs out of memory."""
    for stage in (Maps, Edit):
        patch.object(stage, "compute", _refusing(stage.compute, victim)).start()


def _refusing(compute: Callable[..., Any], victim: str) -> Callable[..., Any]:
    def refusing(stage: Stage, batch: Batch, loaded: Any) -> Any:
        if any(work.sample.id == victim for work in batch):
            print(REFUSED, flush=True)
            raise torch.OutOfMemoryError("one row")
        return compute(stage, batch, loaded)

    return refusing


def nan_latents_of(victim: str) -> None:
    """From here on the victim's latents are NaN."""

    def spoilt(run: Run, sources: Sequence[Source]) -> Posterior:
        found = posteriors(run, sources)
        rows = [row for row, s in enumerate(sources) if s.name.startswith(f"{victim}-")]
        found.mean[rows] = float("nan")
        return found

    for stage in ("maps", "edit"):
        patch(f"piebench_masks.stages.{stage}.posteriors", spoilt).start()


def spoil(weights: Path, layer: str) -> None:
    """Make one weight NaN."""
    tensors = load_file(weights)
    tensors[layer].view(-1)[0] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system of so many bytes in memory at ``folder``; whether it could be mounted."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "torture", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


FAULTS: dict[str, Callable[[Torture], None]] = {
    "kill": Torture.kill_mains,
    "terminate": Torture.terminate,
    "twice": Torture.twice_at_once,
    "damage": Torture.damaged,
    "disk": Torture.disk,
    "memory": Torture.out_of_memory,
    "nan": Torture.not_a_number,
    "workers": Torture.kill_workers,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", choices=[*FAULTS, []], help=", ".join(FAULTS))
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--worker-kills", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        torture = Torture(Path(root), given.kills, given.worker_kills, given.seed)
        for name in given.faults or FAULTS:
            FAULTS[name](torture)
            print(f"{name}: done after {time.monotonic() - started:.0f} s", flush=True)
    print(f"\n{'fault':<32}{'tried':>6}{'survived':>10}{'lost':>6}")
    rows = []
    for fault in dict.fromkeys([*torture.tried, *torture.notes]):
        tried, survived = torture.tried[fault], torture.survived[fault]
        note = torture.notes.get(fault, "")
        print(f"{fault:<32}{tried:>6}{survived:>10}{tried - survived:>6}  {note}")
        rows.append({"fault": fault, "tried": tried, "survived": survived, "note": note})
    lost = torture.tried.total() - torture.survived.total()
    found = {"seed": given.seed, "seconds": round(time.monotonic() - started), "lost": lost}
    if not given.faults:
        target = Path(__file__).parent / "results" / "torture.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(found | {"faults": rows}, indent=2) + "\n")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
