from dataclasses import replace

import numpy as np

from piebench_masks.report.gallery import contact_sheet, select_samples, tiles


def test_best_median_and_worst_of_each_edit_type_are_selected(segmentation):
    picked = select_samples(segmentation, {"ours": 0.5})
    labels = ["Random", "Change Object", "Change Attribute Content"]
    assert list(picked["edit_type"]) == [label for label in labels for _ in range(3)]
    assert list(picked["pick"]) == ["best", "median", "worst"] * 3
    rows = segmentation[(segmentation["method"] == "ours") & (segmentation["threshold"] == 0.5)]
    for edit_type, chosen in picked.groupby("edit_type", observed=True):
        dice = sorted(rows.loc[rows["edit_type"] == edit_type, "dice"], reverse=True)
        assert list(chosen["dice"]) == [dice[0], dice[(len(dice) - 1) // 2], dice[-1]]


def test_selection_depends_neither_on_row_order_nor_on_ties(segmentation):
    tied = segmentation.assign(dice=0.5)
    picked = select_samples(tied, {"ours": 0.5})
    shuffled = select_samples(tied.sample(frac=1, random_state=3), {"ours": 0.5})
    assert picked.equals(shuffled)
    assert picked["sample"][0] == "s00"


def test_a_type_with_one_sample_gives_one_row(segmentation):
    single = segmentation[segmentation["sample"].isin(["s00", "s01", "s02"])]
    assert list(select_samples(single, {"ours": 0.5})["pick"]) == ["best", "best", "worst"]


def test_tiles_come_in_reading_order_with_their_dice(gallery_row):
    assert [(tile.group, tile.label) for tile in tiles(gallery_row)] == [
        ("Sample", "source"),
        ("Sample", "annotated mask"),
        ("Soft maps", "ours"),
        ("Masks (Dice)", "ours 0.50"),
        ("Edits", "no mask"),
        ("Edits", "ours"),
    ]
    assert {tile.image.size for tile in tiles(gallery_row, size=96)} == {(96, 96)}


def test_mask_tile_tells_hits_from_extra_and_missed_pixels(gallery_row):
    mask = np.asarray(tiles(gallery_row, size=32)[3].image).astype(int)
    hit, extra, missed, rest = mask[16, 20], mask[16, 28], mask[16, 10], mask[2, 2]
    assert hit.min() > 140
    assert extra[0] > extra[2] + 50
    assert missed[2] > missed[0] + 50
    assert rest.max() == 0


def test_large_and_oblong_images_are_fitted(gallery_row):
    wide = np.zeros((300, 600, 3), np.uint8)
    row = replace(gallery_row, source=wide, edits={"none": wide})
    assert {tile.image.size for tile in tiles(row)} == {(128, 64)}


def test_contact_sheet_holds_every_tile_and_is_reproducible(gallery_row):
    rows = [gallery_row, replace(gallery_row, annotated=None, target=gallery_row.source)]
    sheet = contact_sheet(rows)
    assert sheet.tobytes() == contact_sheet(rows).tobytes()
    white_edit = np.asarray(sheet).reshape(-1, 3).min(axis=1)
    assert (white_edit == 0).sum() > 2 * 2 * 128 * 128


def test_contact_sheet_names_edit_types_only_where_there_are_several(gallery_row):
    untyped = [replace(gallery_row, edit_type="Random")] * 2
    other = [replace(gallery_row, edit_type="Add Object")] * 2
    assert contact_sheet(untyped).tobytes() == contact_sheet(other).tobytes()
    assert contact_sheet([untyped[0], other[0]]).tobytes() != contact_sheet(untyped).tobytes()
