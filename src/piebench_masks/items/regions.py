"""What an edit of items paints, what it keeps, and which item each place attends to.

Exact functions of masks (D-Edit, arXiv 2403.04880). An edit paints its active region; in the soft
one the source leads the first steps, in the hard one all of them. The soft region is the ring
around the active one, the hard one is the rest. Under an empty active region nothing is painted,
under a full one nothing is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.items import mask_edits
from piebench_masks.items.mask_edits import Move, check_items, difference, ring
from piebench_masks.items.partition import Partition


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of an edit.

    items: for attention, after the edit; active, soft, hard: bool [H, W], together everything, and
    disjoint but for ``reference`` removals; remain: what was taken from items, bool [H, W].
    """

    items: Partition
    active: Tensor
    soft: Tensor
    hard: Tensor
    remain: Tensor


def reconstruct(items: Partition, item: int | None = None) -> Regions:
    """Everything is painted. item: the one that everything attends to, alone."""
    if item is not None:
        check_items(items, [item])
        items = Partition((items.names[item],), torch.ones(1, *items.size, dtype=torch.bool))
    return _regions(items, torch.ones(items.size, dtype=torch.bool))


def text(
    items: Partition,
    target: int,
    *,
    edited: Partition | None = None,
    active: Sequence[int] = (),
    thickness: int = 20,
    compat: Compat = "exact",
) -> Regions:
    """The target's words change: it is painted, and what editing by hand gave to another item.

    edited: the items after editing by hand, in which the target may be new; active: items that are
    painted too; thickness: of the soft ring, pixels. Raises PartitionError for what is no item.
    """
    after = items if edited is None else edited
    check_items(after, [target, *active])
    painted = difference(after, items) | _union(items, [target, *active])
    return _regions(after, painted, thickness, compat)


def image(
    items: Partition,
    target: int,
    *,
    edited: Partition | None = None,
    active: Sequence[int] = (),
    thickness: int = 20,
    compat: Compat = "exact",
) -> Regions:
    """The target gets the words of another picture's item; the rest is as in `text`.

    ``reference``: only the target is painted, as edited.
    """
    if compat == "exact":
        return text(items, target, edited=edited, active=active, thickness=thickness)
    after = items if edited is None else edited
    check_items(after, [target])
    return _regions(after, after.masks[target], thickness, compat)


def remove(
    items: Partition,
    target: int,
    *,
    edited: Partition | None = None,
    processed: Partition | None = None,
    active: Sequence[int] = (),
    thickness: int = 20,
    heir: int | None = None,
    compat: Compat = "exact",
) -> Regions:
    """The target's place goes to its neighbours, and is painted.

    processed: the items after removal, drawn by hand; others: as in `text` and `mask_edits.remove`.
    ``reference``: the soft ring is around the target's place alone, also in the active region.
    """
    before = items if edited is None else edited
    check_items(before, [target, *active])
    if processed is None:
        after, remain = mask_edits.remove(before, target, heir=heir, compat=compat)
    else:
        after, remain = processed, difference(processed, before)
    painted = difference(before, items) | remain | _union(before, active)
    regions = _regions(after, painted, thickness, compat, remain)
    if compat == "exact":
        return regions
    soft = ring(remain, thickness, compat)
    return replace(regions, soft=soft, hard=~painted & ~soft)


def move(
    items: Partition,
    moves: Sequence[Move],
    *,
    edited: Partition | None = None,
    processed: Partition | None = None,
    active: Sequence[int] = (),
    thickness: int = 20,
    heir: int | None = None,
    compat: Compat = "exact",
) -> Regions:
    """Items go elsewhere; where they were and where they are is painted.

    processed: the items after the moves, drawn by hand; others: as in `text` and `mask_edits.move`.
    """
    before = items if edited is None else edited
    moved = [one.item for one in moves]
    check_items(before, [*moved, *active])
    if processed is None:
        after, remain = mask_edits.move(before, moves, heir=heir, compat=compat)
    else:
        after, remain = processed, difference(processed, before)
    painted = difference(before, items) | remain | _union(after, [*moved, *active])
    return _regions(after, painted, thickness, compat, remain)


def _union(items: Partition, numbers: Sequence[int]) -> Tensor:
    """Of items, of which new ones may not be there yet: bool [H, W]."""
    return items.masks[[number for number in numbers if number < len(items.names)]].any(dim=0)


def _regions(
    items: Partition,
    active: Tensor,
    thickness: int = 0,
    compat: Compat = "exact",
    remain: Tensor | None = None,
) -> Regions:
    soft = ring(active, thickness, compat)
    remain = torch.zeros_like(active) if remain is None else remain
    return Regions(items, active=active, soft=soft, hard=~active & ~soft, remain=remain)
