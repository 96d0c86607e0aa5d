"""Anchor points at salient places, and boxes around them, on a grid of cells and in pixels.

Knows tensors only. compat=reference: rows are taken for columns, and anchors keep a distance from
the border (Lin et al., arXiv 2311.16432, as published in code); exact: neither.
"""

import torch
from torch import Tensor

from piebench_masks.diffusion.prompt_diff import Compat

SMALLEST, STEP = 4, 2
"""Published half sizes of boxes, in cells: the first, and between two."""


def half_sizes(largest: int) -> tuple[int, ...]:
    """The published ones of the boxes around every anchor, in cells: 4, 6, ... ``largest``."""
    return tuple(range(SMALLEST, largest + 1, STEP))


def anchor_points(saliency: Tensor, count: int, largest: int, compat: Compat) -> Tensor:
    """The most salient cells of a map [g, g], the most salient first: (row, column), long [P, 2].

    reference: of cells at least ``largest`` away from the border; where there are too few of them,
    the most salient of all cells are added, even those that are there already. Neighbours may be
    chosen together.
    """
    side = saliency.shape[-1]
    order = saliency.flatten().argsort(descending=True, stable=True)
    cells = torch.stack([order // side, order % side], dim=-1)
    if compat == "exact":
        return cells[:count]
    inside = ((cells >= largest) & (cells <= side - 1 - largest)).all(dim=-1)
    kept = cells[inside][:count]
    return torch.cat([kept, cells[: count - len(kept)]])


def corners(points: Tensor, half_size: Tensor | int, side: int, compat: Compat) -> Tensor:
    """The first and last cell of boxes around anchors, as (x1, y1, x2, y2): [..., 4].

    points: (row, column), [..., 2]; half_size: in cells, [...]; side: of the grid. Boxes end at the
    border. reference: x is the row and y the column, so that boxes lie at the mirror image of their
    anchors.
    """
    x, y = points.unbind(dim=-1) if compat == "reference" else points.flip(-1).unbind(dim=-1)
    ends = [x - half_size, y - half_size, x + half_size, y + half_size]
    return torch.stack(ends, dim=-1).clamp(0, side - 1)


def cell_masks(boxes: Tensor, side: int) -> Tensor:
    """Boxes long [..., 4] on the grid, their last cells included: bool [..., side, side]."""
    return masks(boxes + torch.tensor([0, 0, 1, 1], device=boxes.device), side)


def ends(masks: Tensor) -> Tensor:
    """Where boxes bool [..., g, g] lie, as (x1, y1, x2, y2), ends excluded, long [..., 4]."""
    places = [masks.any(dim=dim).long() for dim in (-2, -1)]  # of columns, of rows
    first = torch.stack([place.argmax(dim=-1) for place in places], dim=-1)
    return torch.cat([first, first + torch.stack([p.sum(dim=-1) for p in places], dim=-1)], dim=-1)


def pixel_boxes(boxes: Tensor, image_size: int, side: int) -> Tensor:
    """Boxes of cells, float32 [..., 4], in pixels, long, where the last cell is the last pixel.

    Both ends are rounded up, and the second is behind the box: the last row and column of a
    picture are in no box (compat=reference).
    """
    return (boxes * ((image_size - 1) / (side - 1))).ceil().long()


def masks(boxes: Tensor, size: int) -> Tensor:
    """Boxes long [..., 4], ends excluded, as bool [..., size, size]."""
    x1, y1, x2, y2 = boxes[..., None].unbind(dim=-2)
    place = torch.arange(size, device=boxes.device)
    rows, columns = (place >= y1) & (place < y2), (place >= x1) & (place < x2)
    return rows[..., :, None] & columns[..., None, :]
