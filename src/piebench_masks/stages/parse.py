"""Stage 1: the data set's own files -> one checked Parquet table of samples."""

import functools
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape

from piebench_masks.console import say
from piebench_masks.data.parsed import DataError, Parsed
from piebench_masks.data.sample import Sample
from piebench_masks.data.table import is_sound, read_samples, samples_table
from piebench_masks.identity import part_identity
from piebench_masks.parts import imported, made
from piebench_masks.run import Run
from piebench_masks.store import Folder, Overwrite

VERSION = 4
log = logging.getLogger(__name__)


class DataSet(NamedTuple):
    """The first ``cfg.limit`` samples, and the labels of the data set's edit types in order."""

    samples: list[Sample]
    edit_types: tuple[str, ...]


def parse(run: Run, console: Console) -> DataSet:
    """The configured data set, from the parsed table or, if need be, parsed now.

    Samples that cannot be used end the run with one error that lists them all, or under
    ``on_error=skip`` are listed in ``rejects.jsonl`` beside the table. A dry run writes nothing:
    where the data set itself would be written first, it has no samples yet.
    """
    cfg = run.cfg
    root = Path(cfg.dataset.root)
    if cfg.dataset.prepare and not root.exists():
        doing = "would first write" if cfg.dry_run else "writing"
        words = f"[bold]parse[/]: {doing} the {cfg.dataset.name} data set to {escape(str(root))}"
        say(console, "dataset", words, dataset=cfg.dataset.name, root=root, dry_run=cfg.dry_run)
        if cfg.dry_run:
            return DataSet([], ())
        made(cfg.dataset.prepare, root=root)
    folder = parsed_folder(run)
    table = folder.path / "samples.parquet"
    if run.overwrite is not Overwrite.ALWAYS and table.exists():
        try:
            samples, edit_types = read_samples(table)
            say(console, "stage", None, stage="parse", computed=0, cached=len(samples))
            run.edit_types = edit_types
            return DataSet(samples[: cfg.limit], edit_types)
        except DataError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            log.warning("%s is damaged (%s): the data set is parsed again", table, error.__cause__)
    parsed = _load(run)
    if not cfg.dry_run:
        lines = [json.dumps(vars(rejection)) for rejection in parsed.rejections]
        folder.write_bytes("rejects.jsonl", "".join(f"{line}\n" for line in lines).encode())
        folder.write_bytes("samples.parquet", samples_table(parsed.samples, parsed.edit_types))
    run.parsed, run.edit_types = len(parsed.samples), parsed.edit_types
    words = f"[bold]parse[/]: {len(parsed.samples)} samples, {len(parsed.rejections)} rejected"
    about = {"computed": len(parsed.samples), "failed": len(parsed.rejections)}
    say(console, "stage", words, stage="parse", **about)
    return DataSet(parsed.samples[: cfg.limit], parsed.edit_types)


def parsed_folder(run: Run) -> Folder:
    """Keyed by how the data set is read and by name, size and time of each of its files.

    Names are relative to the data set, so that moving it changes nothing. A copy with other times
    is parsed again, which gives the same samples: as their artifacts are named by their content,
    nothing after this stage is computed again.
    """
    settings = dict(run.section("dataset")["load"])
    loader = functools.partial(imported(settings.pop("_target_")), **settings)
    parameters = {
        "version": VERSION,
        "load": part_identity(loader),
        "on_error": run.cfg.on_error,
        "files": _listing(Path(run.cfg.dataset.root)),
    }
    return run.folder("parse", parameters)


def _load(run: Run) -> Parsed:
    """The loader's data set; DataError where it returns something else or unsound samples."""
    cfg, target = run.cfg, run.cfg.dataset.load["_target_"]
    parsed = made(cfg.dataset.load, root=Path(cfg.dataset.root), on_error=cfg.on_error)
    if not isinstance(parsed, Parsed):
        raise DataError(
            f"{target} returns a {type(parsed).__name__}: let it return "
            "piebench_masks.data.parsed.Parsed(samples, rejections, edit_types), as load_pie_bench "
            "does"
        )
    if bad := next((s for s in parsed.samples if not is_sound(s, parsed.edit_types)), None):
        raise DataError(
            f"{target} gives a sample {bad.id!r} that cannot be stored: its id must be a file "
            "name, its paths must lie inside the data set's image folder, its digests be the "
            "sha256 of the files in hex"
        )
    return parsed


def _listing(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        stat = path.stat()
        name = os.fsencode(path.relative_to(root))  # which need not be Unicode
        digest.update(name + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
