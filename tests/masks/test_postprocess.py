"""What can be done to any map, and the laws that it obeys."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import METHODS
from piebench_masks.masks.binarize import rescale
from piebench_masks.masks.diffedit import DiffEdit
from piebench_masks.masks.ours import Ours
from piebench_masks.masks.postprocess import (
    Blur,
    Graph,
    Propagate,
    Rescale,
    laplacian,
    smooth,
    to_grid,
)
from piebench_masks.masks.record import Record, Recording
from piebench_masks.masks.soft_maps import soft_maps

CONF = Path(__file__).parents[2] / "conf" / "mask"
SCENE = Scene("a", torch.zeros(64, 64, 3, dtype=torch.uint8), "a red circle", "a blue circle")


@pytest.fixture
def soft_map() -> Tensor:
    return torch.rand(8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def attention() -> Tensor:
    return torch.rand(64, 64, generator=torch.Generator().manual_seed(1)).mul(4).softmax(dim=-1)


def record(attention: Tensor) -> Record:
    side = round(len(attention) ** 0.5)
    recording = Recording(arrays={"self_attention": {side: attention[None]}})
    return Record(SCENE, map_size=8, recordings={("probe", None): recording})


def test_rescale_is_the_binarizers(soft_map: Tensor, attention: Tensor) -> None:
    assert torch.equal(Rescale()(soft_map, record(attention)), rescale(soft_map))


def test_blur_keeps_constants_and_sums_in_the_middle(attention: Tensor) -> None:
    shown = record(attention)
    constant = torch.full((8, 8), 0.3)
    torch.testing.assert_close(Blur()(constant, shown), constant)
    spike = torch.zeros(9, 9)
    spike[4, 4] = 1.0
    blurred = Blur(sigma=0.5**0.5, size=3)(spike, shown)
    assert blurred.sum().item() == pytest.approx(1.0)
    # exp(-u^2), normalised: LEDITS++'s kernel
    assert (blurred[4, 5] / blurred[4, 4]).item() == pytest.approx(torch.tensor(-1.0).exp().item())
    assert torch.equal(blurred, blurred.T)


@pytest.mark.parametrize("settings", [{"size": 4}, {"sigma": 0.0}, {"size": 31}])
def test_a_blur_that_cannot_be(soft_map: Tensor, attention: Tensor, settings: Any) -> None:
    with pytest.raises(BenchmarkError, match="Blur"):
        Blur(**settings)(soft_map, record(attention))


def test_propagation_is_the_power_of_self_attention(soft_map: Tensor, attention: Tensor) -> None:
    shown, flat = record(attention), soft_map.flatten()
    for power in (1, 3):
        expected = torch.linalg.matrix_power(attention, power)
        torch.testing.assert_close(Propagate(power)(soft_map, shown).flatten(), expected @ flat)
        transposed = Propagate(power, transposed=True)(soft_map, shown)
        torch.testing.assert_close(transposed.flatten(), expected.T @ flat)
    assert torch.equal(Propagate(2)(soft_map, record(torch.eye(64))), soft_map)


@pytest.mark.parametrize("post", [Propagate(transposed=True), Propagate(2), Graph()])
def test_a_constant_map_stays_constant(attention: Tensor, post: Any) -> None:
    assert post(torch.full((8, 8), 0.3), record(attention)).eq(0.3).all()


def test_the_laplacians_rows_sum_to_zero(attention: Tensor) -> None:
    graph = laplacian(attention)
    torch.testing.assert_close(graph.sum(dim=1), torch.zeros(64), atol=1e-6, rtol=0)
    assert torch.equal(graph, graph.T)


def test_without_smoothing_the_map_is_what_it_was(soft_map: Tensor, attention: Tensor) -> None:
    torch.testing.assert_close(Graph(lam=0.0)(soft_map, record(attention)), soft_map)
    isolated = Graph()(soft_map, record(torch.eye(64)))
    torch.testing.assert_close(isolated, soft_map)


def test_much_smoothing_gives_one_value(soft_map: Tensor, attention: Tensor) -> None:
    trust = soft_map + 0.1
    flat = smooth(soft_map, trust, laplacian(attention), 1e4)
    mean = (trust * soft_map).sum() / trust.sum()
    torch.testing.assert_close(flat, mean.expand(8, 8), atol=2e-3, rtol=0)


def test_maps_are_brought_to_the_grid_of_the_attention(soft_map: Tensor, attention: Tensor) -> None:
    large = soft_map.repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(to_grid(large, 8), soft_map)
    assert torch.equal(to_grid(soft_map, 8), soft_map)
    small = Propagate()(torch.rand(4, 4), record(attention))
    assert small.shape == (8, 8)


def test_any_method_can_be_given_some(tiny: Backbone) -> None:
    mean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    posterior = Posterior(mean, mean.abs())
    methods = {
        "ours": METHODS["ours"],
        "diffedit": METHODS["diffedit"],
        "ours_self": Ours(post=(Propagate(), Rescale())),
        "diffedit_self": DiffEdit(post=(Blur(), Propagate(grid=8), Graph(grid=8))),
    }
    before = tiny.counts["unet_rows"]
    found = {name: maps[0] for name, maps in soft_maps(tiny, posterior, [SCENE], methods).items()}
    assert tiny.counts["unet_rows"] - before == 21  # as for the two alone
    assert found["ours_self"].shape == (16, 16)  # type: ignore[union-attr]
    assert found["diffedit_self"].shape == (8, 8)  # type: ignore[union-attr]
    assert not torch.equal(found["ours_self"], rescale(found["ours"]))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ours", "attn_based", "noise_based", "diffedit"])
def test_the_configuration_describes_the_default_method(name: str) -> None:
    node = OmegaConf.load(CONF / f"{name}.yaml")[name]
    assert instantiate(node, _convert_="all") == METHODS[name]


def test_settings_are_settable() -> None:
    node = OmegaConf.load(CONF / "diffedit.yaml").diffedit
    post = "{_target_: piebench_masks.masks.postprocess.Propagate, power: 2}"
    changes = OmegaConf.from_dotlist(["draws=4", "threshold=0.3", f"post=[{post}]"])
    made = instantiate(OmegaConf.merge(node, changes), _convert_="all")
    assert made == DiffEdit(draws=4, threshold=0.3, post=(Propagate(power=2),))
