"""Words of a prompt, as tokens of every text encoder, and left out of it."""

import shutil
from pathlib import Path

import pytest
import torch

from piebench_masks.diffusion.backbone import Ablation, Backbone
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.diffusion.prompt_diff import ablation, prompt_diff
from piebench_masks.training.model import write_tokenizers


def words(prompt: str, *chosen: str) -> Ablation:
    return Ablation(spans=tuple((prompt.index(w), prompt.index(w) + len(w)) for w in chosen))


@pytest.mark.parametrize("prompt", ["a red circle on grass", "A  Red circle, on gräss!", ""])
def test_every_token_has_its_characters(tiny: Backbone, prompt: str) -> None:
    tokens, spans = tiny.tokenize(prompt), tiny.spans(prompt)
    assert len(tokens) == len(spans)
    assert spans[0] == spans[-1] == (0, 0)
    for token, (start, stop) in zip(tokens[1:-1], spans[1:-1], strict=True):
        text = tiny.token_text(token).strip()
        assert prompt[start:stop].lower() == text or "\ufffd" in text


def test_words_are_zeroed_as_their_ids_are_in_every_encoder(tiny: Backbone) -> None:
    prompt = "a red circle on sand and a red square"
    red, sand = (tiny.tokenize(word)[1] for word in ("red", "sand"))
    by_words = tiny.encode_prompts([prompt], [words(prompt, "red", "sand")])
    by_ids = tiny.encode_prompts([prompt], [Ablation(ids=frozenset({red, sand}))])
    assert torch.equal(by_words.hidden, by_ids.hidden)
    assert torch.equal(by_words.pooled, by_ids.pooled)


def test_columns_of_the_prompt_become_spans_that_zero_their_tokens(tiny: Backbone) -> None:
    prompt = "a big, red circle on grass"
    tokens, spans = tiny.tokenize(prompt), tiny.spans(prompt)
    for column in range(1, len(tokens) - 1):
        by_span = tiny.encode_prompts([prompt], [Ablation(spans=(spans[column],))])
        by_id = tiny.encode_prompts([prompt], [Ablation(ids=frozenset({tokens[column]}))])
        assert torch.equal(by_span.hidden, by_id.hidden), prompt[slice(*spans[column])]
    start, end = (tiny.encode_prompts([prompt], [Ablation(spans=(spans[i],))]) for i in (0, -1))
    assert torch.equal(start.hidden, tiny.encode_prompts([prompt]).hidden)
    assert torch.equal(end.hidden, start.hidden)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("a red circle on grass", "a blue circle on grass"),
        ("a red circle on grass and a red square", "a circle on sand and a square"),
        ("a circle", "a big red circle on grass"),
        ("a circle", "a circle"),
    ],
)
def test_changed_words_are_their_ids(tiny: Backbone, source: str, target: str) -> None:
    ids = tiny.tokenize(source), tiny.tokenize(target)
    diff = prompt_diff(*ids, max_tokens=tiny.max_tokens, compat="exact")
    probe = source if diff.probe == "source" else target
    by_words = ablation(diff, tiny.spans(probe), "exact")
    by_ids = Ablation(ids=frozenset(diff.ablated))
    found = tiny.encode_prompts([probe, probe], [by_words, by_ids])
    assert torch.equal(found.hidden[0], found.hidden[1])
    assert torch.equal(found.pooled[0], found.pooled[1])
    if source != target:
        assert ablation(diff, tiny.spans(probe), "reference") == by_ids != by_words


def test_an_exclamation_mark_is_no_padding(tiny: Backbone) -> None:
    """It has another id in each tokenizer; in the second that of the padding, which stays."""
    prompt = "a red circle !"
    plain = tiny.encode_prompts(["a red circle"])
    marked = tiny.encode_prompts([prompt], [words(prompt, "!")])
    other = tiny.encode_prompts([prompt], [Ablation(ids=frozenset({0}))])
    # What stands before it does not see it, and what stands behind it is not zeroed.
    assert torch.equal(marked.hidden[:, :4], plain.hidden[:, :4])
    assert not torch.allclose(marked.hidden[:, 5:], other.hidden[:, 5:])


def test_an_encoder_with_a_vocabulary_of_its_own_zeroes_its_own_tokens(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """The same word is three tokens in the second tokenizer: all of them go."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    few = tmp_path / "few"
    write_tokenizers(few, ("a", "circle"))
    shutil.rmtree(folder / "tokenizer_2")
    shutil.copytree(few / "tokenizer_2", folder / "tokenizer_2")
    backbone = load_backbone(folder)
    prompt = "a red circle"
    plain = backbone.encode_prompts([prompt])
    zeroed = backbone.encode_prompts([prompt], [words(prompt, "red")])
    by_id = backbone.encode_prompts(
        [prompt], [Ablation(ids=frozenset(backbone.tokenize("red")[1:2]))]
    )
    assert torch.equal(zeroed.hidden[..., :48], by_id.hidden[..., :48])
    assert torch.equal(zeroed.hidden[:, :2, 48:], plain.hidden[:, :2, 48:])
    for position in range(2, 5):
        assert not torch.allclose(zeroed.hidden[0, position, 48:], plain.hidden[0, position, 48:])
