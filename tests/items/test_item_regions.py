"""What an edit of items paints: laws of all of them, and each on a picture of one row."""

from collections.abc import Callable

import pytest
import torch

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.items import regions
from piebench_masks.items.mask_edits import Move, assign, ring
from piebench_masks.items.partition import Partition, PartitionError
from piebench_masks.items.regions import Regions

COMPATS: tuple[Compat, ...] = ("exact", "reference")
both = pytest.mark.parametrize("compat", COMPATS)
EDITS: dict[str, Callable[..., Regions]] = {
    "text": lambda items, **given: regions.text(items, 1, **given),
    "image": lambda items, **given: regions.image(items, 1, **given),
    "remove": lambda items, **given: regions.remove(items, 1, **given),
    "move": lambda items, **given: regions.move(items, [Move(1, 2, 1, 1.2)], **given),
}
each = pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)


def row(labels: str) -> Partition:
    return Partition.from_labels(torch.tensor([[int(c) for c in labels]]), ("a", "b", "c", "d")[:4])


def line(mask: torch.Tensor) -> str:
    return "".join("#" if pixel else "." for pixel in mask[0])


def drawn(seed: int, size: int = 16) -> tuple[Partition, Partition]:
    """Items in random rectangles, and the same with some pixels drawn over."""
    generator = torch.Generator().manual_seed(seed)
    items = Partition.from_labels(torch.zeros(size, size), ("a", "b", "c", "d"))
    partitions = []
    for item in (1, 2, 3, 0):
        corner = torch.randint(0, size - 5, (2,), generator=generator).tolist()
        pixels = torch.zeros(size, size, dtype=torch.bool)
        pixels[corner[0] : corner[0] + 5, corner[1] : corner[1] + 7] = True
        items = assign(items, pixels, item)
        partitions.append(items)
    return partitions[-2], partitions[-1]


@each
def test_regions_part_the_picture_and_soft_is_the_ring_around_active(
    edit: Callable[..., Regions],
) -> None:
    for seed in range(10):
        items, edited = drawn(seed)
        for active, thickness, by_hand in (((), 3, None), ((2,), 0, edited), ((0, 3), 30, edited)):
            found = edit(items, edited=by_hand, active=active, thickness=thickness)
            parts = torch.stack([found.active, found.soft, found.hard])
            assert parts.sum(dim=0).eq(1).all()
            assert torch.equal(found.soft, ring(found.active, thickness))
            # What is frozen has the item that it had before: its words and its pixels agree.
            assert torch.equal(found.items.labels[~found.active], items.labels[~found.active])


@both
@each
def test_without_a_ring_what_is_not_painted_is_kept(
    edit: Callable[..., Regions], compat: Compat
) -> None:
    found = edit(drawn(0)[0], thickness=0, compat=compat)
    assert not found.soft.any() and torch.equal(found.hard, ~found.active)


def test_a_reconstruction_paints_everything() -> None:
    items, _ = drawn(1)
    found = regions.reconstruct(items)
    assert found.items is items
    one = regions.reconstruct(items, 2)
    assert one.items.names == ("c",) and one.items.masks.all()
    for each in (found, one):
        assert each.active.all() and not (each.soft | each.hard | each.remain).any()
    with pytest.raises(PartitionError, match="there is no item 4"):
        regions.reconstruct(items, 4)


def test_a_text_paints_its_item_before_and_after_editing() -> None:
    items, edited = row("0011122233"), row("0001122233")
    plain = regions.text(items, 1, thickness=1)
    assert line(plain.active) == "..###....." and line(plain.soft) == ".#...#...."
    assert line(plain.hard) == "#.....####" and plain.items is items
    found = regions.text(items, 1, edited=edited, active=[3], thickness=1)
    assert line(found.active) == "..###...##" and found.items is edited
    assert not found.remain.any()


def test_a_new_item_of_edited_masks_is_painted() -> None:
    items = row("0000011111")
    edited = assign(items, torch.tensor([[False] * 4 + [True] * 2 + [False] * 4]), "hat")
    found = regions.text(items, 4, edited=edited, thickness=1)
    assert line(found.active) == "....##...." and found.items.names[4] == "hat"


def test_an_image_edit_heeds_what_was_drawn() -> None:
    items, edited = row("0011122233"), row("0001122233")
    exact = regions.image(items, 1, edited=edited, active=[3], thickness=1)
    published = regions.image(items, 1, edited=edited, active=[3], thickness=1, compat="reference")
    assert line(exact.active) == "..###...##"
    assert line(published.active) == "...##....."


def test_a_removal_paints_the_gap() -> None:
    items = row("0011122233")
    found = regions.remove(items, 1, active=[3], thickness=1)
    assert found.items.labels.tolist() == [[0, 0, 0, 0, 2, 2, 2, 2, 3, 3]]
    assert line(found.active) == "..###...##" and line(found.remain) == "..###....."
    assert line(found.soft) == ".#...#.#.."
    # The public code softens around the gap alone, and there also what is painted.
    published = regions.remove(items, 1, active=[2], thickness=1, compat="reference")
    assert line(published.active) == "..######.." and line(published.soft) == ".#...#...."
    assert line(published.hard) == "#.......##"
    assert line(regions.remove(items, 1, active=[2], thickness=1).soft) == ".#......#."


def test_a_move_paints_where_an_item_was_and_is() -> None:
    items = row("0011222233")
    found = regions.move(items, [Move(1, columns=2)], thickness=1)
    assert found.items.labels.tolist() == [[0, 0, 0, 0, 1, 1, 2, 2, 3, 3]]
    assert line(found.remain) == "..##......" and line(found.active) == "..####...."
    assert line(found.soft) == ".#....#..."


@pytest.mark.parametrize("edit", [EDITS["remove"], EDITS["move"]])
def test_masks_processed_by_hand_are_taken_as_they_are(edit: Callable[..., Regions]) -> None:
    items, edited, by_hand = row("0011122233"), row("0001122233"), row("0000222233")
    found = edit(items, edited=edited, processed=by_hand, thickness=1)
    assert found.items is by_hand
    assert line(found.remain) == "...##....." and line(found.active) == "..###....."


@both
def test_empty_full_and_thin_items_are_edited(compat: Compat) -> None:
    empty = row("0000000000")
    for edit in (regions.text, regions.image, regions.remove):
        found = edit(empty, 1, thickness=3, compat=compat)
        assert found.hard.all() and not (found.active | found.soft).any()
    for edit in (regions.text, regions.image):
        found = edit(row("1111111111"), 1, thickness=3, compat=compat)
        assert found.active.all() and not (found.hard | found.soft).any()
    thin = regions.text(row("0000100000"), 1, thickness=2, compat=compat)
    assert line(thin.soft) == ("..##.##..." if compat == "exact" else "..#...#...")


@each
def test_what_is_no_item_is_told(edit: Callable[..., Regions]) -> None:
    with pytest.raises(PartitionError, match="there is no item 7: choose one of 0 a, 1 b"):
        edit(drawn(0)[0], active=[7])
