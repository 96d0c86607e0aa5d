"""Laws of StyleDiffusion, on tiny random models."""

import json
from dataclasses import replace
from pathlib import Path

import laws
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.style_diffusion import StyleDiffusion, embedding, initial
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity
from piebench_masks.weights import WeightsError

EVERYWHERE, BOTH = laws.EVERYTHING.expand(2, -1, -1), torch.tensor([0, 1])


def save_clip(folder: Path, width: int) -> str:
    """An encoder of five tokens."""
    vision = {"image_size": 64, "layers": 1, "width": width, "head_width": 8, "patch_size": 32}
    config = {
        "embed_dim": 8,
        "vision_cfg": vision,
        "text_cfg": {"width": 8, "heads": 1, "layers": 1},
    }
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def editor(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> StyleDiffusion:
    width = tiny.encode_prompts([""]).hidden.shape[-1]
    clip = save_clip(tmp_path_factory.mktemp("clip"), width)
    return StyleDiffusion(clip, None, steps=3, guidance=3.0, inner_steps=2)


@pytest.mark.parametrize("compat", ["exact", pytest.param("reference", marks=pytest.mark.slow)])
def test_the_laws_of_editors(
    editor: StyleDiffusion, compat: str, tiny: Backbone, tiny_folder: Path
) -> None:
    each = replace(editor, compat=compat)  # type: ignore[arg-type]
    laws.company_changes_nothing(each, tiny_folder)
    laws.evaluations_are_counted(each, tiny)


def test_before_a_step_the_outside_is_the_sources(editor: StyleDiffusion, tiny: Backbone) -> None:
    sources, watched = laws.two_samples(tiny), laws.Watched(tiny)
    inverted = editor.invert(tiny, sources)
    editor.edit(watched, sources, inverted, laws.MASKS, laws.OWNER)  # type: ignore[arg-type]
    outside = ~laws.MASKS[:, None].expand(-1, 4, -1, -1)
    calls = [(timestep, y) for timestep, y in watched.calls if len(y) == len(laws.MASKS)]
    assert len(calls) == 2 * 3
    for timestep, y in calls:
        x = inverted.inversion.x[inverted.inversion.timesteps.index(timestep)][laws.OWNER]
        assert torch.equal(y[outside], x[outside])


def test_training_leads_back_to_the_inversion(editor: StyleDiffusion, tiny: Backbone) -> None:
    sources = laws.two_samples(tiny)
    errors = []
    for inner_steps in (0, 8):
        inverted = replace(editor, inner_steps=inner_steps).invert(tiny, sources).inversion
        assert inverted.trajectory is not None
        missed = inverted.trajectory[1] - inverted.x[1]
        errors.append(missed.square().flatten(1).mean(dim=1))
        calls = 3 + 3 * 3 + sum((8, 8, 7)) * (inner_steps > 0)
        assert (inverted.nfe <= calls).all() and (inverted.nfe >= 3 + 3 * 3).all()
    assert (errors[1] < 0.9 * errors[0]).all()


def test_with_the_learnt_values_an_edit_to_the_source_prompt_is_the_source_branch(
    editor: StyleDiffusion, tiny: Backbone
) -> None:
    sources = laws.two_samples(tiny)
    same = laws.changed(sources, target_prompt=sources.source_prompts)
    each = replace(editor, style_share=1.0)
    inverted = each.invert(tiny, same)
    assert inverted.inversion.trajectory is not None
    found = each.sample(tiny, same, inverted, EVERYWHERE, BOTH).latents
    torch.testing.assert_close(found, inverted.inversion.trajectory[-1], atol=1e-2, rtol=1e-2)
    plain = replace(each, style_share=0.0).sample(tiny, same, inverted, EVERYWHERE, BOTH).latents
    assert not torch.isclose(plain, found, atol=5e-2).all()


def test_the_network_is_that_of_convolutions_over_the_tokens() -> None:
    """As torch draws, and normalises in training."""
    torch.manual_seed(7)
    second = torch.nn.Conv1d(12, 12, 1)
    first, third = torch.nn.Conv1d(5, 12, 1), torch.nn.Conv1d(12, 12, 1)
    norm = torch.nn.BatchNorm1d(12)
    network = initial(tokens=5, length=6, seed=7)
    for layer, weight, bias in ((first, 0, 1), (second, 2, 3), (third, 6, 7)):
        torch.testing.assert_close(network[weight], layer.weight[..., 0].detach())
        assert layer.bias is not None
        torch.testing.assert_close(network[bias], layer.bias.detach())
    features = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    norm.weight.data.uniform_()
    norm.bias.data.uniform_()
    network[4], network[5] = norm.weight.detach(), norm.bias.detach()
    blocks = torch.nn.Sequential(first, second, norm, torch.nn.LeakyReLU(0.01), third)
    torch.testing.assert_close(embedding(network, features), blocks(features[None])[0].detach())


def test_an_encoder_of_another_width_is_named(tiny: Backbone, tmp_path: Path) -> None:
    narrow = StyleDiffusion(save_clip(tmp_path, 24), None, steps=2)
    with pytest.raises(BenchmarkError, match=r"clip=.* tokens of width 24, .* text is \d+ wide"):
        narrow.invert(tiny, laws.two_samples(tiny))


def test_the_identity_is_the_content_of_the_encoder(editor: StyleDiffusion, tmp_path: Path) -> None:
    folder = Path(editor.clip.removeprefix("local-dir:"))
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    same = replace(editor, clip=f"local-dir:{tmp_path}")
    assert part_identity(same) == part_identity(editor)
    assert part_identity(replace(same, inner_steps=9)) != part_identity(editor)


def test_an_encoder_that_is_not_there_is_missed_before_anything_is_edited(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"CLIP model .* could not be loaded"):
        StyleDiffusion(f"local-dir:{tmp_path}/none", None).load()
