"""Laws of the single methods: what their settings must give at their ends, and what they cost."""

from typing import Any

import pytest
import torch
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import METHODS, SEGMENTERS, MapMethod
from piebench_masks.masks.binarize import BINARIZERS, rescale
from piebench_masks.masks.casa import Casa
from piebench_masks.masks.chord import Chord
from piebench_masks.masks.clusters import Clusters, cluster_means, k_means
from piebench_masks.masks.instant import Instant
from piebench_masks.masks.ledits import Ledits, rank
from piebench_masks.masks.postprocess import Propagate, Rescale
from piebench_masks.masks.relevance import Relevance
from piebench_masks.masks.soft_maps import soft_maps

PROMPTS = "a red circle on grass", "a blue circle on grass"


@pytest.fixture
def soft_map(tiny: Backbone) -> Any:
    def compute(method: MapMethod, **more: Any) -> Any:
        mean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
        picture = torch.zeros(64, 64, 3, dtype=torch.uint8)
        scene = Scene("a", picture, *more.pop("prompts", PROMPTS), **more)
        posterior = Posterior(mean, torch.zeros_like(mean))
        return soft_maps(tiny, posterior, [scene], {"m": method})["m"][0]

    return compute


def test_all_methods_of_prompts_cost_seven_rows(tiny: Backbone, soft_map: Any) -> None:
    """The probe, its ablation and the other prompt; chord's four; ten draws of DiffEdit apart."""
    mean = torch.zeros(1, 4, 16, 16)
    picture = torch.zeros(64, 64, 3, dtype=torch.uint8)
    scene = Scene("a", picture, *PROMPTS, blended_words="red blue")
    apart = {*SEGMENTERS, "saliency", "diffedit"}
    methods = {n: method for n, method in METHODS.items() if n not in apart}
    before = tiny.counts["unet_rows"]
    soft_maps(tiny, Posterior(mean, mean), [scene], methods)
    assert tiny.counts["unet_rows"] - before == 7


def test_an_unsmoothed_graph_leaves_the_attention(soft_map: Any) -> None:
    smooth, plain = soft_map(Casa()), soft_map(Casa(lam=0.0))
    assert plain.min() == 0 and plain.max() == pytest.approx(1, abs=1e-4)
    assert smooth.std() < plain.std()


def test_a_map_that_is_not_carried_is_rescaled_attention(soft_map: Any) -> None:
    """Power 0; the tiny model's finest grid is that of its maps."""
    found = soft_map(METHODS["attn_self"].__class__(power=0))
    expected = soft_map(METHODS["attn_based"])
    torch.testing.assert_close(found, rescale(expected), atol=1e-4, rtol=0)


def test_carrying_any_map_is_a_post_processor(soft_map: Any) -> None:
    post = (Propagate(), Rescale())
    found = soft_map(METHODS["diffedit"].__class__(post=post))
    assert found.min() == 0 and found.max() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.9, 1.0])
def test_what_reaches_a_rank_is_in_both_quantiles(soft_map: Any, quantile: float) -> None:
    soft = soft_map(Ledits())
    mask = BINARIZERS["reaches"].masks(soft, [quantile], soft.shape, "exact")[0]
    assert mask.all() if quantile == 0 else mask.float().mean() <= 1 - quantile + 1 / 256
    assert mask.equal(soft >= quantile - 1e-6)


def test_ranks_count_ties_together() -> None:
    ranks = rank(torch.tensor([[3.0, 1.0], [1.0, 2.0]]))
    torch.testing.assert_close(ranks, torch.tensor([[3, 1], [1, 2]]) / 3)


def test_outliers_are_clipped(soft_map: Any) -> None:
    clipped, whole = soft_map(Relevance(reach=0.0)), soft_map(Relevance(reach=1e6))
    assert (clipped > 0.99).float().mean() == pytest.approx(0.25, abs=0.02)
    assert (whole > 0.99).float().mean() < 0.05
    assert clipped.flatten().argsort()[:100].equal(whole.flatten().argsort()[:100])


def test_one_cluster_is_the_mean_and_as_many_as_places_change_nothing() -> None:
    attention = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    soft = torch.rand(4, 4, generator=torch.Generator().manual_seed(1))
    one = cluster_means(soft, k_means(attention, soft.flatten(), 1))
    torch.testing.assert_close(one, soft.mean().expand(4, 4))
    each = cluster_means(soft, k_means(attention, soft.flatten(), 16))
    torch.testing.assert_close(each, soft)


def test_clusters_are_those_of_the_attention() -> None:
    """Two blocks of places that attend to their own block only."""
    block = torch.zeros(16, 16)
    block[:8, :8] = block[8:, 8:] = 1 / 8
    start = torch.linspace(0, 1, 16)
    labels = k_means(block, start, 2)
    assert labels[8:].unique().tolist() == [0] and labels[:8].unique().tolist() == [1]


def test_clusters_have_few_values(soft_map: Any) -> None:
    assert len(soft_map(Clusters(clusters=3)).unique()) <= 3


def test_instant_does_not_ask_which_words_change(soft_map: Any) -> None:
    other = soft_map(Instant(), prompts=("a red circle on grass", "a red circle on sand"))
    torch.testing.assert_close(soft_map(Instant()), other)


def test_words_of_the_target_are_looked_for_in_the_source(soft_map: Any) -> None:
    method = METHODS["target_words"]
    blue, big = soft_map(method), soft_map(method, prompts=(PROMPTS[0], f"big {PROMPTS[0]}"))
    assert blue.min() > 0 and not torch.equal(blue, big)
    deleted = soft_map(method, prompts=("a red circle on grass", "a circle on grass"))
    assert isinstance(deleted, Tensor) and deleted.eq(0).all()


def test_the_blended_word_is_a_leak_and_must_be_there(soft_map: Any) -> None:
    method = METHODS["blended_word"]
    assert method.knows == "word"
    found = soft_map(method, blended_words="red blue")
    alone = soft_map(method, blended_words="red")
    assert found.min() > 0 and alone.min() > 0
    missing = soft_map(method)
    assert isinstance(missing, BenchmarkError) and "sample a has no blended_word" in str(missing)
    inserted = soft_map(method, prompts=("a circle on grass", "a big circle on grass"))
    assert isinstance(inserted, Tensor) and inserted.eq(0).all()


def test_chord_needs_two_levels(soft_map: Any) -> None:
    assert soft_map(Chord()).min() >= 0
    for wrong in ({"start": 0.1}, {"delta": 0.0}, {"start": 1.1}):
        with pytest.raises(Exception, match=r"0 < delta < start <= 1"):
            Chord(**wrong)
