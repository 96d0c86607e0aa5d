"""Training the miniature: its vocabulary, its losses, and a folder that diffusers loads."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoPipelineForImage2Image, StableDiffusionXLImg2ImgPipeline
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from piebench_masks.data.shapes.grammar import EVERYTHING, WORDS
from piebench_masks.training.captions import ablated_words, tokenize
from piebench_masks.training.model import MAX_TOKENS, write_tokenizers
from piebench_masks.training.scenes import draw_pool, to_unit_range
from piebench_masks.training.unet import grounding_loss
from piebench_masks.training.vae import build_vae, normalise_latents


def test_the_written_folder_is_an_sdxl_pipeline(trained: Path) -> None:
    pipeline = AutoPipelineForImage2Image.from_pretrained(trained, dtype=torch.float32)
    assert isinstance(pipeline, StableDiffusionXLImg2ImgPipeline)
    image = pipeline(
        "a red circle on grass",
        image=Image.new("RGB", (64, 64)),
        num_inference_steps=4,
        strength=0.5,
        guidance_scale=0.0,
    ).images[0]
    assert image.size == (64, 64)


def test_weights_are_stored_in_half_precision(trained: Path) -> None:
    weights = [load_file(path) for path in trained.rglob("*.safetensors")]
    assert len(weights) == 4
    assert {tensor.dtype for part in weights for tensor in part.values()} == {torch.float16}


def test_every_word_is_one_token_of_both_tokenizers(tmp_path: Path) -> None:
    size = write_tokenizers(tmp_path, WORDS)
    first, second = (
        CLIPTokenizer.from_pretrained(tmp_path / name) for name in ("tokenizer", "tokenizer_2")
    )
    for word in WORDS:
        start, token, end = first(word).input_ids
        assert (start, end) == (size - 2, size - 1)
        assert first.decode([token]) == word
        assert second(word).input_ids == [start, token, end]
    assert len({first(word).input_ids[1] for word in WORDS}) == len(WORDS)
    assert (first.pad_token_id, second.pad_token_id) == (size - 1, 0)


def test_text_outside_the_vocabulary_is_spelled_in_bytes(tmp_path: Path) -> None:
    write_tokenizers(tmp_path, WORDS)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    ids = tokenizer("un café!").input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "un café !"


def test_tokens_point_at_what_their_words_name(tmp_path: Path) -> None:
    write_tokenizers(tmp_path, WORDS)
    pool = draw_pool(40)
    captions = tokenize(pool.scenes, tmp_path)
    for row, scene in enumerate(pool.scenes):
        pointed = captions.regions[row, captions.words[row]].tolist()
        assert pointed == ([region for _, region in scene.words()] if row % 20 else [])
    assert captions.ids[0].shape == (40, MAX_TOKENS)
    assert (captions.regions[~captions.words] == EVERYTHING).all()


def test_words_of_one_kind_are_ablated_together(tmp_path: Path) -> None:
    write_tokenizers(tmp_path, WORDS)
    captions = tokenize(draw_pool(400).scenes, tmp_path)
    lost = ablated_words(captions, torch.Generator().manual_seed(0))
    assert not (lost & ~captions.words).any()
    assert 0.4 < lost.any(dim=1).float().mean() < 0.6
    for ids, gone, words in zip(captions.ids[0], lost, captions.words, strict=True):
        assert not set(ids[gone].tolist()) & set(ids[words & ~gone].tolist())


def test_grounding_is_zero_where_attention_is_its_target() -> None:
    targets = torch.rand(2, 5, 16) + 0.1
    targets /= targets.sum(dim=-1, keepdim=True)
    here = [targets.transpose(1, 2) * scale for scale in (1.0, 0.3)]
    elsewhere = [targets.flip(0).transpose(1, 2)]
    weights = torch.ones(2, 5)
    assert grounding_loss(here, targets, weights).item() == pytest.approx(0, abs=1e-3)
    assert grounding_loss(elsewhere, targets, weights) > 0.05
    assert grounding_loss(elsewhere, targets, torch.zeros(2, 5)) == 0


@torch.no_grad()
def test_normalised_latents_decode_to_the_same_pixels() -> None:
    torch.manual_seed(0)
    vae = build_vae((8, 8, 8))
    pixels = to_unit_range(draw_pool(16).images)
    before = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    normalise_latents(vae, pixels)
    posterior = vae.encode(pixels).latent_dist
    scaled = posterior.mode() * vae.config.scaling_factor
    assert torch.allclose(scaled.std(dim=(0, 2, 3)), torch.tensor(0.8), atol=1e-3)
    assert torch.allclose(scaled.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(vae.decode(posterior.mode()).sample, before, atol=1e-3)
