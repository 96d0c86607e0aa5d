"""Stage 1: the data set's own files -> one checked Parquet table of samples."""

import hashlib
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from piebench_masks.console import say
from piebench_masks.data.pie_bench import DataError
from piebench_masks.data.sample import Sample
from piebench_masks.data.table import read_samples, samples_table
from piebench_masks.run import Run, made
from piebench_masks.store import Folder, Overwrite

VERSION = 2
log = logging.getLogger(__name__)


def parse(run: Run, console: Console) -> list[Sample]:
    """The samples of the configured data set, from the parsed table or, if need be, parsed now.

    Samples that cannot be used end the run with one error that lists them all, or under
    ``on_error=skip`` are listed in ``rejects.jsonl`` beside the table.
    """
    cfg = run.cfg
    root = Path(cfg.dataset.root)
    if cfg.dataset.prepare and not root.exists():
        words = f"[bold]parse[/]: writing the {cfg.dataset.name} data set to {escape(str(root))}"
        say(console, "dataset", words, dataset=cfg.dataset.name, root=root)
        made(cfg.dataset.prepare, root=root)
    folder = parsed_folder(run)
    if run.overwrite is not Overwrite.ALWAYS:
        with suppress(DataError):  # no table yet, or a damaged one
            samples = read_samples(folder.path / "samples.parquet")
            say(console, "stage", None, stage="parse", computed=0, cached=len(samples))
            return samples[: cfg.limit]
    samples, rejections = made(cfg.dataset.load, root=root, on_error=cfg.on_error)
    if not cfg.dry_run:
        lines = [json.dumps(vars(rejection)) for rejection in rejections]
        folder.write_bytes("rejects.jsonl", "".join(f"{line}\n" for line in lines).encode())
        folder.write_bytes("samples.parquet", samples_table(samples))
    run.parsed = len(samples)
    words = f"[bold]parse[/]: {len(samples)} samples, {len(rejections)} rejected"
    about = {"stage": "parse", "computed": len(samples), "failed": len(rejections)}
    say(console, "stage", words, **about)
    return samples[: cfg.limit]


def parsed_folder(run: Run) -> Folder:
    """Keyed by how the data set is read and by name, size and time of each of its files."""
    parameters = {
        "version": VERSION,
        "dataset": run.cfg.dataset.name,
        "load": run.section("dataset")["load"],
        "on_error": run.cfg.on_error,
        "files": _listing(Path(run.cfg.dataset.root)),
    }
    return run.folder("parse", parameters)


def _listing(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        stat = path.stat()
        name = os.fsencode(path.relative_to(root))  # which need not be Unicode
        digest.update(name + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
