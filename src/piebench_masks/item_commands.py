"""What ``piebench-masks items COMMAND`` does with its settings: see `item_settings`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from piebench_masks.chosen import default_device, usable_device
from piebench_masks.console import JsonConsole, say
from piebench_masks.errors import BenchmarkError
from piebench_masks.item_settings import (
    FitItemsSettings,
    ItemEditSettings,
    ItemSettings,
    SegmentSettings,
)
from piebench_masks.items.fit import EMBEDDINGS, UNET
from piebench_masks.items.folder import ItemFolder, ItemModel, Task, Told
from piebench_masks.items.mask_edits import Move
from piebench_masks.items.partition import INDEX
from piebench_masks.masks.segmenter import Segmenter
from piebench_masks.parts import made
from piebench_masks.runner import LOG_EVERY, progress_bar

TASKS: dict[str, Task] = {
    "reconstruct": "reconstruct",
    "text": "text",
    "image": "image_item",
    "move": "move",
    "remove": "remove",
}


def run_item_command(name: str, cfg: ItemSettings, console: Console) -> int:
    """Run the command of that name. Returns 0: what cannot be done raises BenchmarkError."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    device = usable_device(cfg.device or default_device())
    with _progress(console) as progress:
        folder = _folder(cfg, device, console, progress)
        if isinstance(cfg, SegmentSettings):
            lines = _segment(folder, cfg, device)
        elif isinstance(cfg, ItemEditSettings):
            lines = _edit(folder, name, cfg)
        else:
            lines = _fit(folder, cfg)
    for line in lines:
        if isinstance(console, JsonConsole):
            console.event("result", message=line)
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return 0


def _folder(
    cfg: ItemSettings, device: torch.device, console: Console, progress: Told
) -> ItemFolder:
    path = Path(cfg.folder)
    if not path.is_dir():
        raise BenchmarkError(f"there is no folder {path}: set folder to that of a picture")
    model = cfg.model
    found = ItemModel.find(
        model.id,
        revision=model.revision,
        variant=model.variant,
        cache_dir=model.cache_dir,
        dtype=getattr(torch, model.dtype),
        vae_dtype=getattr(torch, model.vae_dtype),
        device=device,
        rows=model.rows,
        vae_rows=model.vae_rows,
        compiled=model.compile,
    )
    other = cfg.other if isinstance(cfg, FitItemsSettings) else None
    templates = cfg.templates if isinstance(cfg, ItemEditSettings) else None

    def starts(goes_on: bool) -> None:
        how = "from its last saved state" if goes_on else "anew"
        say(console, "fit", escape(f"fitting {model.name} to {path}, {how}"), goes_on=goes_on)

    return ItemFolder(
        path,
        found,
        made(cfg.fit),
        Path(other) if other else None,
        templates or {},
        starts,
        progress,
    )


def _segment(folder: ItemFolder, cfg: SegmentSettings, device: torch.device) -> list[str]:
    segmenter = made(cfg.panoptic)
    if cfg.texts:
        [(name, node)] = cfg.mask.items()
        segmenter = made(node)
        if not isinstance(segmenter, Segmenter):
            raise BenchmarkError(
                f"mask.{name} looks for no texts: choose clipseg, clipseg_shapes, grounded_sam or "
                "sam3"
            )
    where = folder.path / INDEX[False]
    if cfg.dry_run:
        return [f"{where}: would be made by {type(segmenter).__name__}, unless others are there"]
    items = folder.segment(
        segmenter,
        cfg.texts,
        grow=cfg.grow,
        resolution=cfg.resolution,
        device=device,
        overwrite=cfg.overwrite,
    )
    shares = (100 * items.masks.double().mean(dim=(1, 2))).tolist()
    listed = zip(items.names, shares, strict=True)
    lines = [f"{i} {name}: {share:.1f} % of the picture" for i, (name, share) in enumerate(listed)]
    return [f"{where}: {len(lines)} items", *lines]


def _fit(folder: ItemFolder, cfg: ItemSettings) -> list[str]:
    path, is_there = folder.fit_file, folder.fit_file.exists()
    if cfg.dry_run:
        passes = folder.settings.embedding_steps + folder.settings.unet_steps
        return [f"{path}: {'is there' if is_there else f'would be made, {passes} passes'}"]
    losses = folder.fitted.losses
    ends = [f"{phase} {_ends(losses[phase])}" for phase in (EMBEDDINGS, UNET) if len(losses[phase])]
    return [f"{path}: {'was there' if is_there else 'new'}", f"losses: {', '.join(ends)}"]


def _ends(losses: torch.Tensor) -> str:
    """Means of the first and of the last fifth."""
    count = -(-len(losses) // 5)
    return f"{losses[:count].mean():.4f} -> {losses[-count:].mean():.4f}"


def _edit(folder: ItemFolder, name: str, cfg: ItemEditSettings) -> list[str]:
    task, arguments = TASKS[name], {**cfg.arguments, "name": cfg.name or name}
    if "moves" in arguments:
        arguments["moves"] = [Move(**one) for one in arguments["moves"]]
    if arguments.get("processed"):
        arguments["processed"] = Path(arguments["processed"])
    sampling = made(cfg.sampling)
    if cfg.dry_run:
        result = folder.planned(task, sampling, **arguments).result
        words = "would be made" if result.is_new else "is there"
        return [*(f"{path}: {words}" for path in result.images), *_fit(folder, cfg)]
    result = folder.edit(task, sampling, **arguments)
    words = "new" if result.is_new else "was there"
    return [f"{path}: {words}" for path in (*result.images, result.overview)]


@contextmanager
def _progress(console: Console) -> Iterator[Told]:
    """A bar for each thing that is told of; where there is no terminal a line now and then."""
    last_line = time.monotonic()
    with progress_bar(console) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            nonlocal last_line
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
                last_line = time.monotonic()
            bars.update(tasks[what], completed=done)
            now = time.monotonic()
            if (done == total or now - last_line >= LOG_EVERY) and not console.is_terminal:
                last_line = now
                say(console, "progress", f"{what}: {done} of {total}", done=done, total=total)

        yield progress
