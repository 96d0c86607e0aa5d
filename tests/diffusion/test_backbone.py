"""Laws of the loaded model, on a tiny random one with SDXL-Turbo's parts."""

import shutil
from pathlib import Path

import pytest
import torch

from piebench_masks.diffusion.attention import AttentionRecorder
from piebench_masks.diffusion.backbone import Ablation, Backbone, Conditioning
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.errors import BenchmarkError

PROMPTS = ["a red circle on grass", "a blue square on sand", "sketch of a big circle"]


@pytest.fixture(scope="module")
def call(tiny: Backbone) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    """Five rows at different timesteps: more than one block of four."""
    latents = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return (
        latents,
        torch.tensor([999, 499, 249, 499, 749]),
        tiny.encode_prompts([*PROMPTS, *PROMPTS[:2]]),
    )


def ids(*tokens: int) -> Ablation:
    return Ablation(ids=frozenset(tokens))


def recorder(rows: int) -> AttentionRecorder:
    return AttentionRecorder(torch.eye(32)[1 : rows + 1], map_size=16)


def test_sizes_come_from_the_configs(tiny: Backbone) -> None:
    assert (tiny.image_size, tiny.latent_size, tiny.max_tokens) == (64, 16, 32)
    assert [level.timestep for level in tiny.levels(4)] == [751, 501, 251, 1, 0]
    assert [level.timestep for level in tiny.levels(4, "trailing")] == [999, 749, 499, 249, 0]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"missing/model_index\.json.*hf download"):
        load_backbone(tmp_path / "missing")


@pytest.mark.parametrize("part", ["unet", "text_encoder_2", "vae"])
def test_a_part_without_weights(tiny_folder: Path, tmp_path: Path, part: str) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    for weights in (folder / part).glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(BenchmarkError, match=str(folder)):
        load_backbone(folder)


def test_a_torn_weight_file_and_a_variant_that_is_not_there(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BenchmarkError, match="variant=fp16"):
        load_backbone(tiny_folder, variant="fp16")
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BenchmarkError, match=str(folder)):
        load_backbone(folder)


def test_a_row_does_not_depend_on_its_neighbours(
    tiny: Backbone, call: tuple[torch.Tensor, torch.Tensor, Conditioning]
) -> None:
    latents, timesteps, conditioning = call
    together = recorder(5)
    noise = tiny.predict_noise(latents, timesteps, conditioning, together)
    for row in ([3], [4, 0], [2, 1, 0, 4, 3]):
        alone = AttentionRecorder(together.token_weights[row], map_size=16)
        again = tiny.predict_noise(latents[row], timesteps[row], conditioning[row], alone)
        torch.testing.assert_close(again, noise[row], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.maps, together.maps[row], atol=1e-6, rtol=0)


def test_a_recorder_only_looks_on(
    tiny: Backbone, call: tuple[torch.Tensor, torch.Tensor, Conditioning]
) -> None:
    assert torch.equal(tiny.predict_noise(*call, recorder(5)), tiny.predict_noise(*call))


def test_attention_to_all_tokens_is_one_per_layer(
    tiny: Backbone, call: tuple[torch.Tensor, torch.Tensor, Conditioning]
) -> None:
    everything = AttentionRecorder(torch.ones(5, 32), map_size=16)
    tiny.predict_noise(*call, everything)
    layers = torch.full((5, 16, 16), 3.0)
    torch.testing.assert_close(everything.maps, layers)


def test_ablation_touches_its_own_row_and_leaves_no_trace(tiny: Backbone) -> None:
    plain = tiny.encode_prompts(PROMPTS)
    red = tiny.tokenize("red")[1]
    ablated = tiny.encode_prompts(PROMPTS, [ids(red), ids(), ids(red)])
    assert not torch.allclose(ablated.hidden[0], plain.hidden[0])
    assert not torch.allclose(ablated.pooled[0], plain.pooled[0])
    assert torch.equal(ablated.hidden[1:], plain.hidden[1:])  # the third prompt has no "red"
    assert torch.equal(tiny.encode_prompts(PROMPTS).hidden, plain.hidden)


def test_ablation_reaches_every_occurrence(tiny: Backbone) -> None:
    red, blue = (tiny.tokenize(word)[1] for word in ("red", "blue"))
    both = tiny.encode_prompts(["a red and red", "a blue and blue"], [ids(red), ids(blue)])
    torch.testing.assert_close(both.hidden[0], both.hidden[1], atol=1e-6, rtol=0)


def test_ablation_goes_by_the_same_id_in_both_encoders(tiny: Backbone) -> None:
    plain, ablated = (tiny.encode_prompts(["a red circle"], [each]) for each in (ids(), ids(0)))
    # Id 0 occurs in no prompt, but it is the padding of the second tokenizer (methods.md).
    assert torch.equal(ablated.hidden[..., :48], plain.hidden[..., :48])
    assert not torch.allclose(ablated.hidden[..., 48:], plain.hidden[..., 48:])


def test_pictures_go_in_and_out_as_uint8_and_are_counted(tiny: Backbone) -> None:
    before = tiny.counts.copy()
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    posterior = tiny.encode_images(images)
    decoded = tiny.decode(posterior.mean)
    assert posterior.mean.shape == posterior.std.shape == (3, 4, 16, 16)
    assert (decoded.shape, decoded.dtype) == (images.shape, torch.uint8)
    assert tiny.counts - before == {"vae_encodes": 3, "vae_decodes": 3}
