import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from piebench_masks.report.charts import dice_figure, pareto_figure
from piebench_masks.report.draw import draw, save
from piebench_masks.report.pareto import curves, pareto_front, pareto_points
from piebench_masks.tracking.finished import native_plots

# Few distinct values, so that ties and equal points are frequent.
coordinates = st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan])
directions = st.sampled_from(["up", "down"])


@given(st.lists(st.tuples(coordinates, coordinates), max_size=12), directions, directions)
def test_front_is_what_no_other_point_dominates(points, x_direction, y_direction):
    sign = {"down": 1, "up": -1}
    costs = [(sign[x_direction] * x, sign[y_direction] * y) for x, y in points]

    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] <= b[0] and a[1] <= b[1] and a != b

    expected = [
        not np.isnan(sum(cost)) and not any(dominates(other, cost) for other in costs)
        for cost in costs
    ]
    x, y = np.array(points, dtype=float).reshape(-1, 2).T
    assert pareto_front(x, y, x_direction, y_direction).tolist() == expected


def test_points_are_means_over_samples_and_the_oracle_is_never_on_the_front(editing, columns):
    points = pareto_points(editing, columns, "lpips_unedit_part", "clip_edited")
    assert len(points) == 1 + 1 + 21
    oracle = points[points["mask_source"] == "oracle"]
    assert oracle["lpips_unedit_part"].item() == 0 and not oracle["front"].item()
    assert points["front"].any()
    ours = editing[(editing["method"] == "ours") & (editing["threshold"] == 0.5)]
    ours = ours.dropna(subset=["lpips_unedit_part", "clip_edited"])
    shown = points[(points["method"] == "ours") & (points["threshold"] == 0.5)]
    assert shown["clip_edited"].item() == pytest.approx(ours["clip_edited"].mean())
    assert shown["lpips_unedit_part"].item() == pytest.approx(ours["lpips_unedit_part"].mean())


def test_a_sample_without_a_background_lends_no_gain(editing, columns):
    sample = editing["sample"].iloc[0]
    bare = editing.assign(
        lpips_unedit_part=editing["lpips_unedit_part"].where(editing["sample"] != sample)
    )
    others = editing[editing["sample"] != sample]
    found, expected = (
        pareto_points(rows, columns, "lpips_unedit_part", "clip_edited") for rows in (bare, others)
    )
    pd.testing.assert_frame_equal(found, expected)


def test_figures_have_the_same_bytes_every_time(editing, segmentation, columns, tmp_path):
    for run in ("first", "second"):
        pareto = draw(pareto_figure(editing, columns, "lpips_unedit_part", "clip_edited"))
        paths = save(pareto, tmp_path / run, "pareto")
        assert {path.suffix for path in paths} == {".png", ".svg", ".pdf"}
        save(draw(dice_figure(segmentation)), tmp_path / run, "dice")
    for first in (tmp_path / "first").iterdir():
        assert first.read_bytes() == (tmp_path / "second" / first.name).read_bytes(), first.name


def test_pareto_plot_names_its_axes_and_methods(editing, columns):
    drawn = draw(pareto_figure(editing, columns, "lpips_unedit_part", "clip_edited"))
    [axes], [legend] = drawn.axes, drawn.legends
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("LPIPS outside ×10³ ↓", "CLIP edited ↑")
    shown = [text.get_text() for text in legend.get_texts()]
    assert sorted(shown) == ["Pareto front", "no mask", "oracle", "ours"]


def test_editors_that_paint_share_a_plot_and_others_are_called_by_their_name(editing, columns):
    both = pd.concat([editing, editing.assign(editor="diffedit")])
    names = set(curves(pareto_points(both, columns, "lpips_unedit_part", "clip_edited"))["name"])
    labels = ("no mask", "ours", "oracle")
    assert names == {f"{editor}, {of}" for editor in ("turbo_edit", "diffedit") for of in labels}
    made = editing[editing["method"] == "none"].assign(editor="elsewhere", method="predicted")
    for rows, expected in ((made, set()), (pd.concat([editing, made]), set(labels))):
        points = pareto_points(rows, columns, "lpips_unedit_part", "clip_edited")
        assert set(curves(points)["name"]) == expected | {"elsewhere"}


def test_more_than_three_editors_have_a_chart_each_and_one_front(editing, columns):
    axes = "lpips_unedit_part", "clip_edited"
    target = editing[editing["method"] == "none"].assign(
        editor="target", method="target", lpips_unedit_part=0.0, clip_edited=9.0
    )
    better = [editing.assign(editor=f"editor{n}", clip_edited=n) for n in range(4)]
    figure = pareto_figure(pd.concat([*better, target]), columns, *axes)
    assert [chart.title for chart in figure.charts] == [f"editor{n}" for n in range(4)]
    for chart in figure.charts:
        assert {one.name for one in chart.series} == {"no mask", "ours", "oracle", "target"}
        ringed = [point for one in chart.series for point in one.points if point.ringed]
        assert bool(ringed) == (chart.title == "editor3")
    [front] = {tuple(chart.front) for chart in figure.charts}
    assert {y for _, y in front} == {3 * columns["clip_edited"].scale}
    drawn = draw(figure)
    assert [each.get_title() for each in drawn.axes] == [f"editor{n}" for n in range(4)]
    assert len(drawn.legends) == 1
    points = native_plots({"pareto": figure})["pareto"].frame
    names = set(points["method"])
    assert names == {
        *(f"editor{n}, {of}" for n in range(4) for of in ("no mask", "ours", "oracle")),
        "target",
    }
    assert not points.duplicated().any()


def test_trivial_masks_are_not_on_the_front_and_only_in_plots_of_one_editor(editing, columns):
    full = editing[editing["method"] == "none"].assign(
        method="full",
        mask_source="predicted",
        threshold=0.5,
        lpips_unedit_part=0.0,
        clip_edited=9.0,
    )
    points = pareto_points(pd.concat([editing, full]), columns, "lpips_unedit_part", "clip_edited")
    assert points["front"].any() and not points.loc[points["method"] == "full", "front"].any()
    assert "full" in set(curves(points)["name"])
    several = pd.concat([points, points.assign(editor="other")])
    assert not any("full" in name for name in curves(several)["name"])


@pytest.mark.parametrize("editors", [1, 3])
def test_labels_cover_neither_each_other_nor_points_and_stay_inside(editing, columns, editors):
    rows = pd.concat([editing.assign(editor=f"editor{number}") for number in range(editors)])
    trivial = [
        rows[rows["method"] == "none"].assign(
            method=name, mask_source="predicted", threshold=0.5, clip_edited=0.5 + place / 99
        )
        for place, name in enumerate(("full", "empty", "centre", "random"))
    ]
    rows = pd.concat([rows, *trivial])
    figure = draw(pareto_figure(rows, columns, "lpips_unedit_part", "clip_edited"))
    (axes,) = figure.axes
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the line to the point
    shown = {text.get_text() for text in axes.texts}
    assert editors > 1 or shown > {"full", "empty", "centre", "random"}
    lines = [line.get_xydata() for line in axes.lines if len(line.get_xydata())]
    points = np.concatenate([axes.transData.transform(line) for line in lines])
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:place])
        assert not any(box.contains(*point) for point in points)
        assert axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
