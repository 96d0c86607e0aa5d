"""A method is shown what it asked for: no less, no more, and nobody pays for it twice."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from piebench_masks.data.scene import Knows, Scene
from piebench_masks.diffusion.attention import Projections
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity
from piebench_masks.masks import METHODS, MapMethod, Needs
from piebench_masks.masks.postprocess import Propagate
from piebench_masks.masks.record import MapError, Record
from piebench_masks.masks.soft_maps import needs_model, soft_maps

CHANGE = ("a red circle on grass", "a blue circle on grass")
INSERT = ("a circle on sand", "a big circle on sand")
EVERYTHING = Needs(
    conditions=("source", "probe"),
    noise=True,
    attention=True,
    cross_attention=("every",),
    self_attention=("every",),
    queries=("map",),
)


@dataclass(frozen=True)
class Asking(MapMethod):
    """Asks for what it is told to, and shows its records to the test."""

    asked: Needs = field(default_factory=Needs)
    shown: list[Record] = field(default_factory=list)
    answer: Callable[[Record], Any] = lambda record: torch.zeros(4, 4)

    @property
    def needs(self) -> Needs:
        return self.asked

    def __call__(self, record: Record) -> Tensor:
        self.shown.append(record)
        return self.answer(record)


@pytest.fixture
def posterior() -> Posterior:
    mean, std = torch.randn(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return Posterior(mean, std.abs())


@pytest.fixture
def ask(tiny: Backbone, posterior: Posterior) -> Any:
    def ask(prompts: tuple[str, str] = CHANGE, **methods: MapMethod) -> Any:
        scene = Scene("a", torch.zeros(64, 64, 3, dtype=torch.uint8), *prompts)
        before = tiny.counts["unet_rows"]
        found = soft_maps(tiny, posterior, [scene], methods)
        return {name: maps[0] for name, maps in found.items()}, tiny.counts["unet_rows"] - before

    return ask


@pytest.fixture
def record(ask: Any) -> Any:
    def record(needs: Needs, prompts: tuple[str, str] = CHANGE) -> Record:
        method = Asking(asked=needs)
        ask(prompts, method=method)
        return method.shown[0]

    return record


def test_the_noise_of_the_probe(record: Any) -> None:
    found = record(Needs(conditions=("probe", "source", "target"), noise=True))
    assert torch.equal(found.at("probe").noise, found.at("source").noise)
    inserted = record(Needs(conditions=("probe", "source", "target"), noise=True), INSERT)
    assert torch.equal(inserted.at("probe").noise, inserted.at("target").noise)


@pytest.mark.parametrize(
    ("read", "remedy"),
    [
        (lambda record: record.at("probe").attention, "attention=True"),
        (lambda record: record.at("probe").cross_attention, "cross_attention="),
        (lambda record: record.at("probe").attention_to("target"), r"texts=\('target',\)"),
        (lambda record: record.at("probe").self_attention, "self_attention="),
        (lambda record: record.at("probe").queries, "queries="),
        (lambda record: record.at("target").noise, r"conditions=\('target',\)"),
        (lambda record: record.at("probe", 0.9).noise, r"levels=\(0.9,\)"),
    ],
)
def test_what_was_not_asked_for_is_named(record: Any, read: Any, remedy: str) -> None:
    needs = Needs(conditions=("probe",), noise=True)
    with pytest.raises(MapError, match=remedy):
        read(record(needs))


def test_nothing_that_others_asked_for_is_shown(ask: Any) -> None:
    method = Asking(asked=Needs(conditions=("probe",), noise=True))
    ask(greedy=Asking(asked=EVERYTHING), method=method, ours=METHODS["ours"])
    with pytest.raises(MapError):
        _ = method.shown[0].at("probe").attention


@pytest.mark.parametrize(
    "settings",
    [
        {"conditions": ("probe",)},
        {"noise": True},
        {"conditions": ("probe",), "noise": True, "draws": 0},
        {"conditions": ("probe",), "noise": True, "levels": (1.5,)},
    ],
)
def test_needs_that_make_no_sense(settings: Any) -> None:
    with pytest.raises(BenchmarkError, match="Needs"):
        Needs(**settings)


def test_more_recordings_cost_no_rows_and_change_no_map(ask: Any) -> None:
    alone, rows = ask(ours=METHODS["ours"], noise_based=METHODS["noise_based"])
    together, more = ask(
        greedy=Asking(asked=EVERYTHING), ours=METHODS["ours"], noise_based=METHODS["noise_based"]
    )
    assert (rows, more) == (3, 3)
    torch.testing.assert_close([together[name] for name in alone], list(alone.values()))


def test_levels_and_draws_are_rows(ask: Any) -> None:
    own = Needs(conditions=("source", "target"), levels=(0.9, 0.75), noise=True)
    method = Asking(asked=own)
    assert ask(method=method)[1] == 4
    shown = method.shown[0]
    assert shown.at("source", 0.9).level.timestep == 899
    assert shown.at("source", 0.75).level.timestep == 749
    started = Asking(asked=Needs(conditions=("source",), levels=(None, 0.5), noise=True, draws=3))
    assert ask(method=started)[1] == 3
    assert started.shown[0].at("source").latents.shape == (3, 4, 16, 16)


def test_all_levels_have_the_same_noise(record: Any, posterior: Posterior) -> None:
    found = record(Needs(conditions=("source",), levels=(0.9, 0.75), noise=True))
    noises = [
        (found.at("source", share).latents - level.signal * posterior.mean) / level.noise
        for share in (0.9, 0.75)
        for level in [found.at("source", share).level]
    ]
    torch.testing.assert_close(*noises)


def test_needs_are_united(record: Any) -> None:
    noise = Needs(conditions=("source", "target"), noise=True, draws=2)
    found = record(noise | Needs(conditions=("probe",), cross_attention=(16,)))
    assert found.at("target").noise.shape == (2, 4, 16, 16)
    assert found.at("probe").cross_attention[16].shape[0] == 1
    with pytest.raises(MapError):
        _ = found.at("source").cross_attention


def test_the_changed_words_of_every_condition(record: Any) -> None:
    conditions = ("source", "target", "probe", "probe_ablated")
    for prompts, columns in ((CHANGE, [(2,), (2,), (2,), (2,)]), (INSERT, [(), (2,), (2,), (2,)])):
        found = record(Needs(conditions=conditions, attention=True), prompts)
        assert [found.at(condition).changed for condition in conditions] == columns


def test_where_words_stand(record: Any) -> None:
    found = record(Needs(conditions=("probe",), attention=True))
    tokens = found.at("probe").tokens
    assert found.positions("circle", tokens) == (3,)
    assert found.positions("circle on", tokens) == (3, 4)
    assert found.positions("square", tokens) == ()
    assert found.positions("a", (*tokens[:-1], *tokens[1:])) == (1, 6)


def test_attention_is_the_sum_over_layers_of_what_each_has(record: Any) -> None:
    probe = record(EVERYTHING).at("probe")
    columns = list(probe.changed)
    summed = probe.cross_attention[16][:, :, columns].mean(dim=2).sum(dim=1)
    torch.testing.assert_close(probe.attention, summed)


def test_every_text_position_and_every_place_is_looked_at_in_shares(record: Any) -> None:
    source = record(EVERYTHING).at("source")
    assert sorted(source.cross_attention) == sorted(source.self_attention) == [8, 16]
    for grid in (8, 16):
        across = source.cross_attention[grid]
        assert across.shape == (1, len(source.layers(grid)), 32, grid, grid)
        assert source.self_attention[grid].shape == (1, grid**2, grid**2)
        torch.testing.assert_close(across.sum(dim=2), torch.ones_like(across[:, :, 0]))
        rows = source.self_attention[grid].sum(dim=-1)
        torch.testing.assert_close(rows, torch.ones_like(rows))


def test_heads_layers_and_words_one_by_one(record: Any) -> None:
    each = Needs(
        conditions=("probe",),
        cross_attention=("map",),
        heads="each",
        words="changed",
        self_attention=("finest",),
        layers="each",
    )
    probe, mean = (record(needs).at("probe") for needs in (each, EVERYTHING))
    heads = probe.cross_attention[16]
    assert heads.ndim == 6
    assert heads.shape[3] == len(probe.changed)
    torch.testing.assert_close(
        heads.mean(dim=2), mean.cross_attention[16][:, :, list(probe.changed)]
    )
    assert list(probe.self_attention) == [16]
    torch.testing.assert_close(probe.self_attention[16].mean(dim=1), mean.self_attention[16])
    assert probe.self_attention[16].shape[1] == len(probe.layers(16, "self"))


def test_layers_can_be_chosen_by_place(record: Any) -> None:
    places = [layer.place for layer in record(EVERYTHING).at("probe").layers(8)]
    assert places == sorted(places, key=["down", "mid", "up"].index)
    assert {"down", "mid", "up"} <= set(places)


def test_a_rows_queries_and_another_texts_keys(record: Any) -> None:
    needs = Needs(
        conditions=("source", "target"),
        cross_attention=(16,),
        texts=("own", "source", "target"),
        queries=(16,),
    )
    found = record(needs)
    source = found.at("source")
    torch.testing.assert_close(source.attention_to("source"), source.cross_attention)
    assert not torch.allclose(source.attention_to("target")[16], source.cross_attention[16])
    assert source.queries[16].shape[:2] == source.cross_attention[16].shape[:2]


def test_a_grid_that_the_model_does_not_have(ask: Any) -> None:
    needs = Needs(conditions=("probe",), cross_attention=(5,))
    error = ask(method=Asking(asked=needs))[0]["method"]
    assert isinstance(error, MapError)
    assert "grid 5" in str(error)
    assert "[16, 8]" in str(error)


def test_only_rows_that_somebody_records_have_their_attention_computed(
    ask: Any, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    original = Projections.row_probabilities
    monkeypatch.setattr(
        Projections,
        "row_probabilities",
        lambda self, row, text=None: computed.append(row) or original(self, row, text),
    )
    monkeypatch.setattr(Projections, "probabilities", property(lambda self: pytest.fail("all")))
    ask(diffedit=METHODS["diffedit"])
    assert computed == []
    ask(noise_based=METHODS["noise_based"], attn_based=METHODS["attn_based"])
    at_map_size = [n for n in tiny.layers if "attn2" in n and _grid(tiny, n) == tiny.map_size]
    assert len(computed) == len(at_map_size)  # one row of two, and none of the padding


def _grid(model: Backbone, name: str) -> int:
    """Of the miniature of conftest: attention at 16x16 outside, at 8x8 inside."""
    return 16 if name.startswith(("down_blocks.0", "up_blocks.1")) else 8


def _raise(record: Record) -> Tensor:
    raise ZeroDivisionError("no luck")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_raise, "method bad raised ZeroDivisionError: no luck"),
        (lambda record: np.zeros((4, 4)), "a ndarray"),
        (lambda record: torch.zeros(1, 4, 4), r"\[1, 4, 4\]"),
        (lambda record: torch.zeros(4, 5), "square"),
        (lambda record: torch.zeros(4, 4, dtype=torch.float64), "float32"),
        (lambda record: torch.full((4, 4), torch.nan), "not finite"),
        (lambda record: record.at("source").noise, "conditions="),
    ],
)
def test_a_bad_method_has_a_reason_and_stops_nobody(ask: Any, answer: Any, reason: str) -> None:
    found, _ = ask(bad=Asking(answer=answer), ours=METHODS["ours"])
    assert isinstance(found["ours"], Tensor)
    with pytest.raises(MapError, match=reason):
        raise found["bad"]


@dataclass(frozen=True)
class Blind(Asking):
    knows: ClassVar[Knows] = "nothing"


def test_a_method_sees_what_it_declares_to_know(ask: Any) -> None:
    needs = Needs(conditions=("source", "target"), noise=True)
    blind, seeing = Blind(asked=needs), Asking(asked=needs)
    ask(blind=blind, seeing=seeing)
    assert (blind.shown[0].scene.source_prompt, seeing.shown[0].scene.source_prompt) == (
        "",
        CHANGE[0],
    )
    assert torch.equal(blind.shown[0].at("source").noise, blind.shown[0].at("target").noise)


def test_a_method_may_optimise_something_of_its_own(ask: Any) -> None:
    def optimised(record: Record) -> Tensor:
        with torch.enable_grad():
            weights = torch.ones(4, requires_grad=True)
            (weights[:, None, None] * record.at("source").noise[0]).square().sum().backward()
        assert weights.grad is not None
        return weights.grad.view(2, 2)

    needs = Needs(conditions=("source",), noise=True)
    found, _ = ask(method=Asking(asked=needs, answer=optimised))
    assert found["method"].shape == (2, 2)


def test_a_function_can_be_a_post_processor(ask: Any) -> None:
    ones = Asking(answer=lambda record: torch.ones(4, 4), post=(lambda m, record: m + 1,))
    assert ask(method=ones)[0]["method"].eq(2).all()


def test_no_model_for_methods_that_need_none() -> None:
    scene = Scene("a", torch.zeros(64, 64, 3, dtype=torch.uint8), *CHANGE)
    chosen = {name: METHODS[name] for name in ("full", "centre", "oracle")}
    assert not needs_model(chosen)
    found = soft_maps(None, None, [scene], chosen, map_size=16)
    assert found["full"][0].shape == (16, 16)  # type: ignore[union-attr]
    assert isinstance(found["oracle"][0], MapError)
    assert needs_model({"ours": METHODS["ours"]})
    assert needs_model({"centre": Asking(post=(Propagate(),))})
    (error,) = soft_maps(None, None, [scene], {"ours": METHODS["ours"]}, map_size=16)["ours"]
    assert "backbone" in str(error)


@dataclass(frozen=True)
class Mine(MapMethod):
    threshold: float = 0.2
    sweep: tuple[float, float, int] = (0.0, 2.0, 5)
    power: float = 1.0


def test_a_setting_is_in_the_identity_if_it_changes_the_map() -> None:
    same = part_identity(Mine())
    assert part_identity(Mine(threshold=0.9, sweep=(0, 1, 3), binarizer="otsu")) == same
    assert part_identity(Mine(power=2.0)) != same
    assert part_identity(Mine(post=(Propagate(),))) != same
    assert part_identity(Mine(post=(Propagate(power=2),))) != part_identity(
        Mine(post=(Propagate(),))
    )


def test_thresholds_of_a_method() -> None:
    assert Mine().thresholds == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert Mine(binarizer="otsu").thresholds == [0.2]
    assert METHODS["full"].thresholds == [0.5]


@pytest.mark.parametrize(
    "settings",
    [
        {"binarizer": "below"},
        {"threshold": float("nan")},
        {"sweep": (1.0, 0.0, 3)},
        {"sweep": (0.0, 1.0, 0)},
        {"sweep": (0.0, 1.0)},
    ],
)
def test_settings_that_no_map_can_be_cut_with(settings: Any) -> None:
    with pytest.raises(BenchmarkError, match="Mine"):
        Mine(**settings)
