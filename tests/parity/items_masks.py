"""Masks, regions and files of D-Edit, family by family: whatever needs no model. All are exact."""

import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from families import Check, furthest
from items import ItemCase
from PIL import Image
from torch import Tensor

from piebench_masks.items import regions
from piebench_masks.items.mask_edits import (
    Move,
    assign,
    difference,
    move,
    on_grid,
    remove,
    resized,
    ring,
    shifted,
)
from piebench_masks.items.partition import (
    Partition,
    PartitionError,
    central_square,
    read_partition,
)
from piebench_masks.items.regions import Regions
from piebench_masks.items.segment import panoptic_items

WORTH = 60
"""Grey levels of one item in the published example."""
PAGE_VALUE = 255
"""Of drawn pixels."""
STILL = (0, 0, 1.0, 0)
"""Rows, columns, ratio and priority of a move where none are given."""
AREAS = ("hard", "soft", "active", "remain")


def exact(family: str, case: ItemCase, name: str, found: Any, stored: Any) -> Check:
    return Check(family, f"{case.key} {name}", furthest(found, stored), 0)


def matching(case: ItemCase, pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
    for name in case.arrays:
        if found := re.fullmatch(pattern, name):
            yield name, found


def small(case: ItemCase) -> Partition:
    masks = case.bits("small/masks")
    return Partition(tuple("abcdefghijkl"[: len(masks)]), masks)


def rings_and_shifts(case: ItemCase) -> Iterator[Check]:
    family = "rings, shifts, sizes"
    for name, found in matching(case, r"edge/thick(\d+)"):
        rings = [ring(mask, int(found[1]), "reference") for mask in small(case).masks]
        yield exact(family, case, name, torch.stack(rings), case.bits(name))
    for name, found in matching(case, r"edge/dot_thick(\d+)"):
        dot = torch.zeros(case.arrays[name].shape, dtype=torch.bool)
        dot[dot.shape[0] // 2, dot.shape[1] // 2] = True
        yield exact(family, case, name, ring(dot, int(found[1]), "reference"), case.arrays[name])
    for name, found in matching(case, r"roll/rows(-?\d+)_cols(-?\d+)"):
        stored = case.arrays[name]
        counted = torch.arange(stored.numel()).view_as(stored)
        yield exact(family, case, name, shifted(counted, *map(int, found.groups())), stored)
    for name, found in matching(case, r"resize/([\d.]+)"):
        masks = [resized(mask, float(found[1])) for mask in small(case).masks]
        yield exact(family, case, name, torch.stack(masks), case.bits(name))
    for name, found in matching(case, r"(ctrl/\w+)/mask_vec"):
        facts = case.facts[found[1]]
        masks = on_grid(case.bits(f"{found[1]}/masks", facts["H"]), _grid(case.arrays[name]))
        yield exact(family, case, name, masks.flatten(1), case.arrays[name])


def _grid(flat: Tensor) -> tuple[int, int]:
    side = int(flat.shape[-1] ** 0.5)
    return side, side


def moves_and_removals(case: ItemCase) -> Iterator[Check]:
    for name, found in matching(case, r"move/(\w+)/masks"):
        facts = case.facts[f"move/{found[1]}"]
        numbers, right, down, priorities = facts["args"]
        ratios = facts.get("resize_list", [1.0] * len(numbers))
        moves = [Move(*one) for one in zip(numbers, down, right, ratios, priorities, strict=True)]
        heir = facts.get("force_mask_remain")
        yield from _edited(case, name, move(small(case), moves, heir=heir, compat="reference"))
    for name, found in matching(case, r"remove/(\d+)/masks"):
        yield from _edited(case, name, remove(small(case), int(found[1]), compat="reference"))


def _edited(case: ItemCase, name: str, found: tuple[Partition, Tensor]) -> Iterator[Check]:
    items, remain = found
    family, place = "moves and removals", name.replace("masks", "remain")
    yield exact(family, case, name, items.masks, case.bits(name))
    yield exact(family, case, place, remain, case.bits(place))


def drawn_pixels(case: ItemCase) -> Iterator[Check]:
    """What the page for editing masks makes of drawn pixels."""
    for name, found in matching(case, r"page/add(\d+)/masks"):
        drawn = case.arrays["page/canvas"] == PAGE_VALUE
        items = assign(small(case), drawn, int(found[1]))
        yield exact("drawn pixels", case, name, items.masks, case.bits(name))
    if "page/add_mask" in case.facts:
        area, names = case.facts["page/add_mask"]
        items = assign(small(case), torch.zeros(small(case).size, dtype=torch.bool), "new")
        yield exact("drawn pixels", case, "a new item", items.masks[-1].sum(), area)
        yield Check("drawn pixels", f"{case.key} names", items.names != tuple(names), 0)


def files(case: ItemCase) -> Iterator[Check]:
    """Names of files, and pictures as they are loaded."""
    for text, facts in case.facts.get("names", {}).items():
        for edited, kind in ((False, "load_mask"), (True, "load_mask_edit")):
            wrong = _loaded(text.split(", "), edited, facts) != _stored(facts[kind])
            yield Check("names of files", f"{case.key} {text}, {kind}", wrong, 0)
    for name, found in matching(case, r"(load_image/\w+)/out(\d+)"):
        pixels = case.arrays[f"{found[1]}/in"].numpy()[..., :3]
        square = central_square(np.ascontiguousarray(pixels), int(found[2]))
        yield exact("pictures", case, name, square, case.arrays[name])


def _stored(facts: Any) -> Any:
    """Names and areas of items; None where the public code stopped."""
    return facts if isinstance(facts, dict) and facts.pop("dtype", None) else None


def _loaded(names: list[str], edited: bool, facts: Any) -> Any:
    """Names and areas of the items in such files, made of as many pixels as the stored ones."""
    with TemporaryDirectory() as folder:
        for kind, start in (("load_mask", "mask"), ("load_mask_edit", "maskEdited")):
            own = [name for name in names if re.match(rf"{start}(SAM)?\d", name)]
            own.sort(key=lambda name: int(re.sub(r"\D*(\d+).*", r"\1", name)))
            stored = facts[kind]
            areas = stored["areas"] if isinstance(stored, dict) else [1] * len(own)
            ends = np.cumsum(areas)
            pixels = np.arange(sum(areas)).reshape(-1, 2 if sum(areas) % 2 == 0 else 1)
            for name, end, area in zip(own, ends, areas, strict=True):
                np.save(Path(folder) / name, (pixels < end) & (pixels >= end - area))
        for name in names:
            if "-1" in name:
                np.save(Path(folder) / name, np.ones((1, 1), dtype=bool))
        try:
            items = read_partition(Path(folder), edited=edited, compat="reference")
        except PartitionError:
            return None
    return {"labels": [*items.names], "areas": items.masks.sum((1, 2)).tolist()}


def segmentations(case: ItemCase) -> Iterator[Check]:
    """Items of a panoptic segmentation."""
    for name, facts in case.facts.get("segment", {}).items():
        stored = {file: np.array(mask) for file, mask in facts["files"].items()}
        words = {}  # of each segment, from the file that it became
        segmentation = np.array(facts["segmentation"])
        for segment in facts["segments_info"]:
            (file,) = [f for f, m in stored.items() if ((segmentation == segment["id"]) == m).all()]
            words[segment["id"]] = re.sub(r"mask\d+_(.*)\.npy", r"\1", file)
        items = panoptic_items(torch.from_numpy(segmentation), words)
        found = [f"mask{i}_{word}.npy" for i, word in enumerate(items.names)]
        family = "panoptic items"
        yield Check(family, f"{case.key} {name}", found != sorted(stored), 0)
        masks = np.stack([stored[file] for file in sorted(stored)])
        yield exact(family, case, f"{name}, masks", items.masks, masks)


def published_example(case: ItemCase) -> Iterator[Check]:
    """The example of the public code: its own masks after a move and a removal, to the pixel."""
    folder = case.goldens.folder / "example1"
    if "example1/labels" not in case.facts or not folder.is_dir():
        return

    def stored(name: str) -> Partition:
        with Image.open(folder / f"{name}.png") as image:
            labels = torch.from_numpy(np.array(image) // WORTH)
        return Partition.from_labels(labels, case.facts["example1/labels"])

    family = "published example"
    items, edited = stored("masks"), stored("masks_edited")
    changed = difference(edited, items)
    name = "example1/edited_difference"
    yield exact(family, case, name, changed, case.bits(name))
    edits: dict[str, Callable[[Partition], tuple[Partition, Tensor]]] = {
        "move": lambda items: move(items, [Move(0, 140, 200, 0.5, 1)], compat="reference"),
        "remove": lambda items: remove(items, 0, compat="reference"),
    }
    for kind, edit in edits.items():
        for start, before in (("orig", items), ("edited", edited)):
            after, remain = edit(before)
            name = f"example1/{kind}_remain_from_{start}"
            yield exact(family, case, name, remain, case.bits(name))
            name = f"computed_{kind}_from_{start}"
            yield exact(family, case, name, after.labels, stored(name).labels)
        # The last one, of the edited masks.
        name = f"published_{kind}"
        yield exact(family, case, name, after.labels, stored(name).labels)
    for name, found in matching(case, r"example1/regions/text_bag_e(\d+)/(hard|soft)"):
        drawn = regions.text(items, 0, thickness=int(found[1]), compat="reference")
        yield exact(family, case, name, getattr(drawn, found[2]), case.bits(name))


def edit_regions(case: ItemCase) -> Iterator[Check]:
    """Items and regions of every edit, at the picture's size, on attention's grids, of latents."""
    for edit, asked in case.edits.items():
        drawn = regions_of(case, edit, asked)
        family = f"regions: {asked.kind}"
        for i, mask in enumerate(drawn.items.masks):
            name = f"{edit}/region/item{i}"
            yield exact(family, case, name, mask, case.bits(name))
        beyond = f"{edit}/region/item{len(drawn.items.names)}" in case.arrays
        yield Check(family, f"{case.key} {edit}, number of items", beyond, 0)
        for area in AREAS:
            name = f"{edit}/region/mask_{area}"
            if name in case.arrays:
                yield exact(family, case, name, getattr(drawn, area), case.bits(name))
            if (name := f"{edit}/{area}_latent") in case.arrays:
                stored = case.arrays[name]
                found = on_grid(getattr(drawn, area)[None], tuple(stored.shape))[0]
                yield exact("regions of latents", case, name, found, stored)
        for name, found in matching(case, rf"{edit}/items_grid(\d+)"):
            grid = int(found[1])
            masks = on_grid(drawn.items.masks, (grid, grid))
            yield exact("items on grids", case, name, masks, case.arrays[name])


def regions_of(case: ItemCase, edit: str, asked: Namespace) -> Regions:
    """Ours of one of the case's edits, by its arguments."""
    picture = asked.tgt_name or asked.name
    items = case.items(picture)
    if asked.kind == "recon":
        return regions.reconstruct(items, asked.tgt_index if asked.recon_an_item else None)
    given: dict[str, Any] = {
        "edited": case.edited(picture) if asked.load_edited_mask else None,
        "active": asked.active_mask_list,
        "thickness": asked.edge_thickness,
        "compat": "reference",
    }
    if asked.kind in ("text", "image"):
        return getattr(regions, asked.kind)(items, asked.tgt_index, **given)
    if asked.load_edited_processed_mask:  # drawn by hand, and stored nowhere else
        masks = [case.bits(f"{edit}/region/item{i}") for i in range(len(items.names))]
        given["processed"] = Partition(items.names, torch.stack(masks))
    given["heir"] = asked.force_mask_remain
    if asked.kind == "remove":
        return regions.remove(items, asked.tgt_index, **given)
    lists = (asked.delta_y_list, asked.delta_x_list, asked.resize_list, asked.priority_list)
    targets = asked.tgt_indices_list
    settings = [one or [still] * len(targets) for one, still in zip(lists, STILL, strict=True)]
    moves = [Move(*one) for one in zip(targets, *settings, strict=True)]
    return regions.move(items, moves, **given)


ITEM_MASK_FAMILIES = (
    rings_and_shifts,
    moves_and_removals,
    drawn_pixels,
    files,
    segmentations,
    published_example,
    edit_regions,
)
