"""Tokens of items in texts: where they stand, how long texts are, and what is pooled."""

import pytest
import torch

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError
from piebench_masks.items.tokens import ItemPrompt, item_texts, new_rows, token_ids


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_tokens_stand_where_the_star_is(model: StableDiffusion) -> None:
    text = model.text
    for tokenizer, encoder, ids in zip(
        text.tokenizers,
        text.encoders,
        token_ids(text, ItemPrompt("a * on grass", 1), 2, "exact"),
        strict=True,
    ):
        first = encoder.get_input_embeddings().num_embeddings + 2
        before, after = (
            tokenizer(part, add_special_tokens=False).input_ids for part in ("a", "on grass")
        )
        own = [tokenizer.bos_token_id, *before, first, first + 1, *after, tokenizer.eos_token_id]
        assert ids.tolist() == own + [tokenizer.pad_token_id] * (len(ids) - len(own))


def test_words_alone_are_as_the_model_reads_them(model: StableDiffusion) -> None:
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    prompts, rows = [ItemPrompt("a red circle")], new_rows(model.text, 1, 1, generator(), "exact")
    found = item_texts(model.text, rows, prompts, masks, tokens=1, compat="exact")
    expected = model.encode_prompts(["a red circle"])
    torch.testing.assert_close(found.texts[0], expected.hidden[0])
    torch.testing.assert_close(found.pooled, expected.pooled[0])


def test_a_sign_in_words_shortens_them_for_the_public_code_only(
    model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.text, "max_tokens", 77)
    lengths = {
        (text, compat): len(token_ids(model.text, prompt, 1, compat)[0])
        for text, prompt in {"own": ItemPrompt(item=0), "sign": ItemPrompt("red #1")}.items()
        for compat in ("exact", "reference")
    }
    assert lengths == {
        ("own", "exact"): 40,
        ("own", "reference"): 40,
        ("sign", "exact"): 77,
        ("sign", "reference"): 40,
    }


@pytest.mark.parametrize("compat", ["exact", "reference"])
def test_an_item_without_pixels_is_pooled_by_the_public_code_only(
    model: StableDiffusion, compat: Compat
) -> None:
    rows = new_rows(model.text, 2, 2, generator(), compat)
    prompts = [ItemPrompt(item=0), ItemPrompt(item=1)]
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0] = True

    def pooled(count: int) -> torch.Tensor:
        found = item_texts(
            model.text, rows, prompts[:count], masks[:count], tokens=2, compat=compat
        )
        return found.pooled

    assert torch.allclose(pooled(2), pooled(1), atol=1e-6) == (compat == "exact")
    with pytest.raises(BenchmarkError, match="no item has a pixel"):
        item_texts(model.text, rows, prompts, torch.zeros_like(masks), tokens=2, compat="exact")


def test_new_rows_look_like_the_models_own(model: StableDiffusion) -> None:
    for rows, encoder in zip(
        new_rows(model.text, 50, 4, generator(), "exact"), model.text.encoders, strict=True
    ):
        table = encoder.get_input_embeddings().weight
        assert rows.shape == (200, table.shape[1]) and rows.dtype == torch.float32
        torch.testing.assert_close(rows.std(), table.std(), rtol=0.05, atol=0)


def test_a_text_of_an_item_has_a_place_for_its_tokens() -> None:
    with pytest.raises(BenchmarkError, match="where the item's tokens belong"):
        ItemPrompt("a cup", item=0)
