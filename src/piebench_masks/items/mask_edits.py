"""Edits of items' masks: move, resize, remove, redraw, and who takes what is left.

Exact functions of masks; knows no file and no model (D-Edit, arXiv 2403.04880). Where the public
code stops with an error, ``reference`` gives what ``exact`` gives.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt, distance_transform_edt
from torch import Tensor

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.items.partition import Partition, PartitionError

SHIFTS = ((1, 0), (-1, 0), (0, -1), (0, 1), (-1, 1), (1, 1), (1, -1))
"""The directions (rows, columns) in which the public code shifts: (-1, -1) is not among them."""
EDGE = 2
"""Pixels within which the public code looks for the end of an item."""
NOBODY = -1


@dataclass(frozen=True)
class Move:
    """Where an item goes: down by ``rows``, right by ``columns``, in pixels, resized by ``ratio``.

    priority: of the items that then cover a pixel the one with the highest has it. Items that stay
    have priority 0 and yield to equals; of moved equals the one that is listed last has it.
    """

    item: int
    rows: int = 0
    columns: int = 0
    ratio: float = 1.0
    priority: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ratio) and self.ratio > 0):
            raise PartitionError(
                f"item {self.item} cannot be resized by {self.ratio}: give a number above 0"
            )


def move(
    items: Partition,
    moves: Sequence[Move],
    *,
    heir: int | None = None,
    compat: Compat = "exact",
) -> tuple[Partition, Tensor]:
    """The items after the moves, and what they left, bool [H, W], which `fill` gives away.

    No moved item takes any of it; heir: the item that takes it all. ``reference``: where the first
    priority is not negative, all moved items win against those that stay. Raises PartitionError.
    """
    moved = [one.item for one in moves]
    check_items(items, [*moved, *([] if heir is None else [heir])])
    if len({*moved}) < len(moved):
        raise PartitionError(f"items {moved} are to be moved: move each of them once")
    in_front = compat == "reference" and bool(moves) and moves[0].priority >= 0
    behind = [] if in_front else [one for one in moves if one.priority < 0]
    labels = torch.full(items.size, NOBODY)
    stays = ~torch.isin(items.labels, torch.tensor(moved))

    def paint(painted: Collection[Move]) -> None:
        for one in sorted(painted, key=lambda one: one.priority):  # equals stay in their order
            labels[placed(items.masks[one.item], one, compat)] = one.item

    paint(behind)
    labels[stays] = items.labels[stays].long()
    paint([one for one in moves if one not in behind])
    remain = labels == NOBODY
    labels = fill(labels, without=moved, heir=heir, compat=compat)
    return Partition.from_labels(labels, items.names), remain


def remove(
    items: Partition, target: int, *, heir: int | None = None, compat: Compat = "exact"
) -> tuple[Partition, Tensor]:
    """The items with the target's mask empty, and what it left, bool [H, W]: see `fill`.

    Raises PartitionError where the target is the only item that has pixels.
    """
    check_items(items, [target, *([] if heir is None else [heir])])
    labels = items.labels.long()
    labels[items.masks[target]] = NOBODY
    labels = fill(labels, without=[target], heir=heir, compat=compat)
    return Partition.from_labels(labels, items.names), items.masks[target]


def assign(items: Partition, pixels: Tensor, item: int | str) -> Partition:
    """Pixels, bool [H, W], go to an item; a text: to a new one of that name, the last."""
    names = (*items.names, item) if isinstance(item, str) else items.names
    item = len(items.names) if isinstance(item, str) else item
    if not 0 <= item < len(names) or pixels.shape != items.size:
        raise PartitionError(
            f"{[*pixels.shape]} pixels of item {item}: draw on {[*items.size]} pixels, and "
            f"name one of {len(items.names)} items or a new one"
        )
    return Partition.from_labels(torch.where(pixels, item, items.labels.long()), names)


def difference(items: Partition, others: Partition) -> Tensor:
    """Where two partitions of one picture have different items: bool [H, W]."""
    if items.size != others.size:
        raise PartitionError(f"masks of {items.size} and {others.size} pixels: give one size")
    return items.labels != others.labels


def fill(
    labels: Tensor, *, without: Collection[int] = (), heir: int | None = None, compat: Compat
) -> Tensor:
    """Every pixel of nobody goes to the nearest item, Euclidean; of equally near pixels the first
    of all rows has it.

    labels: item of every pixel, int64 [H, W], NOBODY where there is none; without: items that take
    nothing; heir: the item that takes everything. ``reference``: near is the nearest pixel that one
    of seven shifts by 2 pixels does not cover. Raises PartitionError where nobody can take it.
    """
    remain = labels == NOBODY
    if heir is not None:
        return labels.where(~remain, heir)
    takers = ~remain & ~torch.isin(labels, torch.tensor([*without]))
    if remain.any() and not takers.any():
        raise PartitionError(
            "no item with pixels is left to take what the moved or removed ones leave: keep one "
            "where it is, or name an heir"
        )
    if compat == "reference":
        inner = [shifted(takers, EDGE * rows, EDGE * columns) for rows, columns in SHIFTS]
        takers &= ~torch.stack(inner).all(dim=0)
    filled = labels.clone()
    if remain.any():
        nearest = nearest_sites(takers.numpy(), remain.numpy())
        filled[remain] = labels.flatten()[torch.from_numpy(nearest)]
    return filled


def ring(mask: Tensor, thickness: int, compat: Compat = "exact") -> Tensor:
    """Pixels outside a mask and at most so many away in rows and in columns: bool [H, W].

    It is empty around an empty and a full mask. ``reference``: pixels that the mask covers when it
    is shifted by exactly ``thickness`` in seven directions, hollow around what is thinner.
    """
    if compat == "reference":
        shifts = [shifted(mask, thickness * rows, thickness * columns) for rows, columns in SHIFTS]
        return torch.stack(shifts).any(dim=0) & ~mask
    if not mask.any():
        return mask
    distance = torch.from_numpy(distance_transform_cdt(~mask.numpy(), metric="chessboard"))
    return (distance > 0) & (distance <= thickness)


def placed(mask: Tensor, move: Move, compat: Compat = "exact") -> Tensor:
    """A mask after a move, bool [H, W]: what leaves the frame is lost.

    Its size changes about the centre of its own box. ``reference``: as in `resized`, and what
    resizing loses does not come back.
    """
    if compat == "reference":
        return shifted(resized(mask, move.ratio), move.rows, move.columns)
    if not mask.any():
        return mask
    for dim, inside in enumerate((mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero())):
        size, delta = mask.shape[dim], (move.rows, move.columns)[dim]
        centre = (inside[0] + inside[-1] + 1).double() / 2
        source = centre + (torch.arange(size) + 0.5 - delta - centre) / move.ratio
        source = source.floor().long()
        taken = mask.index_select(dim, source.clamp(0, size - 1))
        mask = taken & ((source >= 0) & (source < size)).unsqueeze(1 - dim)
    return mask


def resized(mask: Tensor, ratio: float) -> Tensor:
    """As the public code does: the frame, by nearest, and its corner at the top left where that
    shrinks it, or its middle where that makes it larger; bool [H, W].
    """
    height, width = mask.shape
    size = max(1, int(height * ratio)), max(1, int(width * ratio))
    frame = on_grid(mask[None], size)[0]
    if ratio < 1:
        return F.pad(frame, (0, width - size[1], 0, height - size[0]))
    top, left = (int(size[i] / 2) - int(mask.shape[i] / 2) for i in (0, 1))
    return frame[top : top + height, left : left + width]


def on_grid(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks bool [n, H, W] by nearest, bool [n, h, w], of whose cells (i, j) each has the value of
    pixel (floor(i H / h), floor(j W / w)): of a partition it makes a partition.
    """
    return F.interpolate(masks.byte()[None], size, mode="nearest")[0].bool()


def shifted(mask: Tensor, rows: int, columns: int) -> Tensor:
    """A mask moved down and right; nothing comes in, and what leaves is lost: bool [H, W]."""
    height, width = mask.shape
    there = mask[max(-rows, 0) : max(height - rows, 0), max(-columns, 0) : max(width - columns, 0)]
    found = torch.zeros_like(mask)
    if there.numel():
        top, left = max(rows, 0), max(columns, 0)
        found[top : top + there.shape[0], left : left + there.shape[1]] = there
    return found


def nearest_sites(sites: NDArray[np.bool_], places: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The site [H, W] that is nearest to each place [H, W], both in the order of rows, as its index
    in the flattened frame; of equally near ones the first.

    Memory grows with the square of the largest distance, not with the number of sites.
    """
    height, width = sites.shape
    rows, columns = distance_transform_edt(~sites, return_distances=False, return_indices=True)
    y, x = places.nonzero()
    squared = (rows[y, x] - y) ** 2 + (columns[y, x] - x) ** 2
    # All offsets of each squared distance that occurs, in the order of rows.
    reach = math.isqrt(int(squared.max()))
    away = np.arange(-reach, reach + 1) ** 2
    occurs = np.zeros(2 * reach**2 + 1, dtype=bool)
    occurs[squared] = True
    down, right = occurs[away[:, None] + away].nonzero()
    order = np.argsort(away[down] + away[right], kind="stable")
    down, right = down[order] - reach, right[order] - reach
    tried = np.searchsorted(down**2 + right**2, squared)
    found, open_ = np.empty(len(y), dtype=np.int64), np.arange(len(y))
    while len(open_):
        row, column = y[open_] + down[tried[open_]], x[open_] + right[tried[open_]]
        hit = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        hit[hit] = sites[row[hit], column[hit]]
        found[open_[hit]] = row[hit] * width + column[hit]
        open_ = open_[~hit]
        tried[open_] += 1
    return found


def check_items(items: Partition, numbers: Collection[int]) -> None:
    """Raises PartitionError for a number that no item has."""
    for number in numbers:
        if not 0 <= number < len(items.names):
            names = ", ".join(f"{i} {name}" for i, name in enumerate(items.names))
            raise PartitionError(f"there is no item {number}: choose one of {names}")
