"""Laws of the sampling that two-branch editors share, on a tiny random model."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import laws
import pytest
import torch
from torch import Tensor

from piebench_masks.diffusion.attention import AttentionControl, Layer
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.branches import Injection, SourceFeatures, sample_edits
from piebench_masks.editing.editor import Sampled
from piebench_masks.editing.inversion import (
    Inversion,
    Invert,
    ddim,
    direct,
    edit_friendly,
    negative_prompt,
    null_text,
)

EVERYWHERE, BOTH = laws.EVERYTHING.expand(2, -1, -1), torch.tensor([0, 1])


class Free:
    """Steers nothing, and remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.sources: list[Tensor] = []

    def source(self, step: int) -> AttentionControl | None:
        self.asked.append(("source", step))
        return None

    def edit(self, step: int, owner: Tensor, *, negative: bool) -> AttentionControl | None:
        self.asked.append(("negative" if negative else "target", step))
        return None

    def blend(self, step: int, source: Tensor, y: Tensor) -> Tensor:
        self.sources.append(source)
        return y


def edited(
    backbone: Backbone,
    inversion: Invert,
    *,
    masks: Tensor = laws.MASKS,
    owner: Tensor = laws.OWNER,
    steps: int = 4,
    guidance: float = 3.0,
    target: str = "target_prompts",
    steering: Free | None = None,
    **settings: Any,
) -> tuple[Inversion, Sampled]:
    sources = laws.two_samples(backbone)
    source = backbone.encode_prompts(sources.source_prompts)
    inverted = inversion(backbone, sources.encoded.mean, source, steps=steps, guidance=guidance)
    return inverted, sample_edits(
        backbone,
        inverted,
        source,
        backbone.encode_prompts(getattr(sources, target)),
        masks,
        owner,
        steering or Free(),
        guidance=guidance,
        **settings,
    )


def test_the_steering_is_asked_step_by_step_the_source_first(tiny: Backbone) -> None:
    steering = Free()
    edited(tiny, ddim, steering=steering, steps=2)
    parts = ("source", "target", "negative")
    assert steering.asked == [(part, step) for step in (0, 1) for part in parts]


def test_the_source_branch_of_direct_inversion_is_exact(tiny: Backbone) -> None:
    steering = Free()
    inverted, _ = edited(tiny, direct, steering=steering)
    for source, x in zip(steering.sources, inverted.x[1:], strict=True):
        assert torch.equal(source, x[laws.OWNER])
    plain = Free()
    edited(tiny, ddim, steering=plain)
    assert not torch.isclose(plain.sources[-1], steering.sources[-1], atol=1e-2).all()


@pytest.mark.parametrize(
    ("inversion", "inverse", "forward"),
    [
        (ddim, 4, 4 * 4),
        (direct, 4, 4 * 3),
        (negative_prompt, 4, 4 * 3),
        (partial(null_text, inner_steps=1), 4 + 4 * 3, 4 * 4),
        (partial(edit_friendly, skip=0.25), 3, 3 * 3),
    ],
    ids=["ddim", "direct", "negative_prompt", "null_text", "edit_friendly"],
)
def test_guidance_of_the_source_is_asked_for_where_it_matters(
    tiny: Backbone, inversion: Invert, inverse: int, forward: int
) -> None:
    before = tiny.counts["unet_rows"]
    inverted, found = edited(tiny, inversion, masks=EVERYWHERE, owner=BOTH)
    assert (inverted.nfe == inverse).all()
    assert (found.nfe == forward).all()
    assert tiny.counts["unet_rows"] - before == 2 * (inverse + forward)


def test_without_guidance_there_is_one_row_a_branch(tiny: Backbone) -> None:
    _, found = edited(tiny, ddim, guidance=1.0)
    assert (found.nfe == 4 * 2).all()


@pytest.mark.parametrize("inversion", [ddim, direct, negative_prompt], ids=lambda f: f.__name__)
def test_the_last_step_leads_on_from_the_sources_own_latents(
    tiny: Backbone, inversion: Invert
) -> None:
    nothing = laws.NOTHING.expand(2, -1, -1)
    inverted, found = edited(tiny, inversion, masks=nothing, owner=BOTH, guidance=1.0)
    target = tiny.encode_prompts(laws.two_samples(tiny).target_prompts)
    eps = tiny.predict_noise(inverted.x[-2], torch.full((2,), inverted.timesteps[-1]), target)
    expected = inverted.step(3, inverted.x[-2], eps, BOTH)
    torch.testing.assert_close(found.latents, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("inversion", [ddim, negative_prompt], ids=lambda f: f.__name__)
def test_an_edit_to_the_source_prompt_is_the_source_branch(
    tiny: Backbone, inversion: Invert
) -> None:
    steering = Free()
    _, found = edited(
        tiny,
        inversion,
        masks=EVERYWHERE,
        owner=BOTH,
        target="source_prompts",
        steering=steering,
    )
    torch.testing.assert_close(found.latents, steering.sources[-1], atol=1e-2, rtol=1e-2)


def test_a_proximal_cut_of_everything_is_no_guidance(tiny: Backbone) -> None:
    # Of guidance away from the source's prompt nothing is left but that of the edit.
    cut, away = (
        edited(tiny, negative_prompt, masks=EVERYWHERE, owner=BOTH, **settings)[1].latents
        for settings in ({"proximal": 1.0}, {"target": "source_prompts"})
    )
    torch.testing.assert_close(cut, away, atol=1e-2, rtol=1e-2)
    none, least = (
        edited(tiny, negative_prompt, masks=EVERYWHERE, owner=BOTH, proximal=cut)[1].latents
        for cut in (None, 0.0)
    )
    torch.testing.assert_close(none, least, atol=1e-2, rtol=1e-2)


def test_the_source_may_follow_another_trajectory(tiny: Backbone) -> None:
    def elsewhere(*arguments: Any, **settings: Any) -> Inversion:
        inverted = ddim(*arguments, **settings)
        return replace(inverted, trajectory=inverted.x + 1)

    steering = Free()
    inverted, _ = edited(tiny, elsewhere, steering=steering)
    for source, x in zip(steering.sources, inverted.x[1:], strict=True):
        assert torch.equal(source, x[laws.OWNER] + 1)


def test_features_are_put_in_at_the_layers_own_scale() -> None:
    """Some models' layers do not scale by 1 / sqrt(d): the edit attends as its layer would."""
    values = [torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    query, key, value = values
    shown = SimpleNamespace(query=query, key=key, value=value, scale=1.3)
    layer, features = Layer(0, "self", 1, "up"), SourceFeatures(2)
    for owner in (None, torch.tensor([0, 1])):
        injection = Injection(features, ("query", "key"), (0,), owner)
        injection.select(torch.tensor([0, 1]))
        found = injection.attend(layer, shown)  # type: ignore[arg-type]
    assert found is not None
    expected = (1.3 * query @ key.transpose(-1, -2)).softmax(dim=-1) @ value
    torch.testing.assert_close(found, expected)


def test_rows_are_kept_however_they_come() -> None:
    features, values = SourceFeatures(3), torch.randn(3, 2, 5)
    features.put("key", torch.tensor([2, 2]), values[[2, 2]])  # a padded block
    features.put("key", torch.tensor([0, 1]), values[:2])
    assert torch.equal(features.get("key", torch.tensor([2, 0, 2, 1])), values[[2, 0, 2, 1]])
