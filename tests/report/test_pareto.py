import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piebench_masks.report.figures import plot_dice, save_figure
from piebench_masks.report.pareto import pareto_front, pareto_points, plot_pareto

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
    shown = points[(points["method"] == "ours") & (points["threshold"] == 0.5)]
    assert shown["clip_edited"].item() == pytest.approx(ours["clip_edited"].mean())
    assert shown["lpips_unedit_part"].item() == pytest.approx(ours["lpips_unedit_part"].mean())


def test_figures_have_the_same_bytes_every_time(editing, segmentation, columns, tmp_path):
    for run in ("first", "second"):
        pareto = plot_pareto(editing, columns, "lpips_unedit_part", "clip_edited")
        paths = save_figure(pareto, tmp_path / run, "pareto")
        assert set(paths) == {"png", "svg", "pdf"}
        save_figure(plot_dice(segmentation), tmp_path / run, "dice")
    for first in (tmp_path / "first").iterdir():
        assert first.read_bytes() == (tmp_path / "second" / first.name).read_bytes(), first.name


def test_pareto_plot_names_its_axes_and_methods(editing, columns):
    (axes,) = plot_pareto(editing, columns, "lpips_unedit_part", "clip_edited").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("LPIPS outside ×10³ ↓", "CLIP edited ↑")
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(shown) == ["Pareto front", "no mask", "oracle", "ours"]
