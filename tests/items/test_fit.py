"""Fits: what they change, that they learn, and that a fit that was stopped goes on as it was."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pictures_with_items import QUICK, picture
from torch import Tensor

from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError
from piebench_masks.items.fit import EMBEDDINGS, UNET, Fit, Picture, fit
from piebench_masks.items.fitted import FitSettings, Fitted
from piebench_masks.items.optimise import Draw, Progress, State, optimise
from piebench_masks.items.partition import Partition


class StoppedError(Exception):
    pass


def tensors(fitted: Fitted) -> dict[str, Tensor]:
    rows = {str(i): rows for i, rows in enumerate(fitted.rows)}
    return {**rows, **fitted.parameters, **fitted.losses}


def assert_same(found: Fitted, expected: Fitted) -> None:
    assert tensors(found).keys() == tensors(expected).keys()
    assert all(torch.equal(tensors(found)[name], t) for name, t in tensors(expected).items())


@pytest.mark.parametrize(
    ("lora_rank", "stop"), [(0, (EMBEDDINGS, 3)), (0, (UNET, 1)), (2, (UNET, 1)), (2, (UNET, 4))]
)
def test_a_stopped_fit_goes_on_bit_for_bit(
    model: StableDiffusion, tmp_path: Path, lora_rank: int, stop: tuple[str, int]
) -> None:
    settings = replace(QUICK, lora_rank=lora_rank)
    pictures = [picture(0), picture(1)]
    whole = fit(model, pictures, settings, model="tiny")
    passes: list[tuple[str, int]] = []

    def interrupt(progress: Progress) -> None:
        if (progress.phase, progress.step) == stop:
            raise StoppedError

    def count(progress: Progress) -> None:
        passes.append((progress.phase, progress.step))

    place = tmp_path / "state.safetensors"
    with pytest.raises(StoppedError):
        fit(model, pictures, settings, model="tiny", checkpoint=place, every=1, progress=interrupt)
    again = fit(model, pictures, settings, model="tiny", checkpoint=place, every=1, progress=count)
    assert_same(again, whole)
    assert (EMBEDDINGS, 1) not in passes  # it did go on


def test_a_damaged_state_starts_anew_and_one_of_another_fit_is_refused(
    model: StableDiffusion, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "state.safetensors"
    whole = fit(model, [picture(0)], QUICK, model="tiny", checkpoint=place, every=1)
    with pytest.raises(BenchmarkError, match="the state of a fit of other pictures"):
        fit(model, [picture(1)], QUICK, model="tiny", checkpoint=place)
    with pytest.raises(BenchmarkError, match="the state of a fit of other pictures"):
        fit(model, [picture(0)], replace(QUICK, seed=1), model="tiny", checkpoint=place)
    place.write_bytes(place.read_bytes()[:-9])
    assert_same(fit(model, [picture(0)], QUICK, model="tiny", checkpoint=place), whole)
    assert "is damaged" in caplog.text


def test_a_fit_depends_on_the_picture_and_the_seed_and_changes_nothing_of_the_model(
    model: StableDiffusion,
) -> None:
    modules = [model.unet, *model.text.encoders]
    before = [w.clone() for module in modules for w in module.state_dict().values()]
    first = fit(model, [picture(0)], QUICK, model="tiny")
    after = [w for module in modules for w in module.state_dict().values()]
    assert all(map(torch.equal, after, before))
    assert_same(fit(model, [picture(0)], QUICK, model="tiny"), first)
    for pictures, seed in (([picture(1)], 42), ([picture(0)], 43)):
        other = fit(model, pictures, replace(QUICK, seed=seed), model="tiny")
        assert not torch.equal(other.rows[0], first.rows[0])


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_both_phases_lower_the_loss_of_other_draws(model: StableDiffusion, lora_rank: int) -> None:
    settings = FitSettings(
        tokens=2,
        embedding_steps=20,
        unet_steps=20,
        embedding_learning_rate=0.05,
        unet_learning_rate=0.01,
        accumulation=1,
        lora_rank=lora_rank,
    )
    parts = Fit(model, [picture(0)], settings)
    first = parts.start_embeddings(torch.Generator().manual_seed(0))
    parts.draw_latents(first)
    losses = [loss(parts, first)]
    parts.run(first)
    losses.append(loss(parts, first))
    second = parts.start_unet(first, first.generator)
    parts.draw_latents(second)
    assert loss(parts, second) == pytest.approx(losses[-1], rel=0.05)
    parts.run(second)
    losses.append(loss(parts, second))
    assert losses[0] > losses[1] > losses[2]


def loss(parts: Fit, state: State) -> float:
    """Of draws that no fit has seen."""
    generator = torch.Generator().manual_seed(99)
    shape = state.fixed["latents/0"].shape[1:]
    of = parts.loss(state)
    values = []
    with torch.no_grad():
        for timestep in range(50, 1000, 100):
            noise = torch.randn(2, *shape, generator=generator)
            values.append(of(0, Draw(noise, torch.tensor([timestep] * 2))).item())
    return sum(values) / len(values)


def test_what_is_trained_is_query_key_and_value_of_cross_attention_or_lora(
    model: StableDiffusion,
) -> None:
    plain = fit(model, [picture(0)], QUICK, model="tiny").parameters
    assert {name.rpartition(".attn")[2] for name in plain} == {
        f"2.to_{part}.weight" for part in "qkv"
    }
    lora = fit(model, [picture(0)], replace(QUICK, lora_rank=2), model="tiny").parameters
    parts = [f"{i}.to_{part}" for i in (1, 2) for part in ("q", "k", "v", "out.0")]
    ends = {f"{part}.lora_{factor}" for part in parts for factor in "AB"}
    assert {name.rpartition(".attn")[2] for name in lora} == ends
    assert all(tensor.abs().max() > 0 for tensor in lora.values())


def test_lora_of_the_output_stays_as_it_was_with_one_picture_in_the_public_code(
    model: StableDiffusion,
) -> None:
    settings = replace(QUICK, lora_rank=2, compat="reference")
    for pictures, is_idle in (([picture(0)], True), ([picture(0), picture(1)], False)):
        parameters = fit(model, pictures, settings, model="tiny").parameters
        outputs = [t for name, t in parameters.items() if "attn2.to_out.0.lora_B" in name]
        assert outputs and all((tensor == 0).all() == is_idle for tensor in outputs)


def state(**trained: Tensor) -> State:
    return State("unet", torch.Generator(), trained, {})


def nothing() -> list[Draw]:
    return [Draw(torch.zeros(1), torch.zeros(1, dtype=torch.long))]


def test_gradients_that_overflow_are_taken_of_a_smaller_multiple() -> None:
    found, expected = (state(w=torch.tensor([3.0])) for _ in range(2))
    found.scale = 2.0**16

    def half(step: int, draw: Draw) -> Tensor:
        return (found.trained["w"].half() * 5).square().mean().float()

    def single(step: int, draw: Draw) -> Tensor:
        return (expected.trained["w"] * 5).square().mean()

    for each, loss in ((found, half), (expected, single)):
        optimise(each, nothing, loss, steps=3, accumulation=1, learning_rate=0.1)
    assert 1 < found.scale < 2.0**16
    torch.testing.assert_close(found.trained["w"], expected.trained["w"], rtol=1e-3, atol=0)


def test_a_fit_that_breaks_down_says_so() -> None:
    broken = state(w=torch.tensor([1.0]))
    with pytest.raises(BenchmarkError, match="broke down in pass 1 of its phase unet"):
        optimise(
            broken,
            nothing,
            lambda step, draw: broken.trained["w"].sum() * torch.nan,
            steps=1,
            accumulation=1,
            learning_rate=0.1,
        )


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"tokens": 0}, {"unet_learning_rate": 0.0}, {"lora_rank": -1}):
        with pytest.raises(BenchmarkError, match="out of range"):
            FitSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(BenchmarkError, match="multiples of accumulation"):
        FitSettings(unet_steps=7, accumulation=2)
    with pytest.raises(BenchmarkError, match="masks of its size"):
        Picture(torch.zeros(8, 8, 3, dtype=torch.uint8), Partition(("a",), torch.ones(1, 4, 4) > 0))


def test_pictures_that_do_not_fill_the_latents_are_refused(model: StableDiffusion) -> None:
    items = Partition(("a",), torch.ones(1, 62, 64, dtype=torch.bool))
    odd = Picture(torch.zeros(62, 64, 3, dtype=torch.uint8), items)
    with pytest.raises(BenchmarkError, match="sides that are multiples of 4"):
        fit(model, [odd], QUICK, model="tiny")
    with pytest.raises(BenchmarkError, match="at least one picture"):
        fit(model, [], QUICK, model="tiny")
