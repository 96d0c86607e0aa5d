"""Which token stands for which, on made-up tokens: one for each run of four letters or a mark."""

import re

import pytest
import torch

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.editing.alignment import Prompt, cross_schedule, refine, replace

TEXTS: dict[str, int] = {"<": 0, ">": 1}
LENGTH = 16


def tokenize(text: str) -> list[int]:
    tokens = re.findall(r"[^\W_]{1,4}|[^\w\s]", text.lower())
    return [TEXTS.setdefault(token, len(TEXTS)) for token in ("<", *tokens, ">")]


def parse(text: str, compat: Compat = "exact", max_tokens: int = LENGTH) -> Prompt:
    return Prompt.parse(
        text, tokenize, lambda token: list(TEXTS)[token], max_tokens=max_tokens, compat=compat
    )


@pytest.mark.parametrize("compat", ["exact", "reference"])
def test_a_word_has_all_its_tokens(compat: Compat) -> None:
    prompt = parse("a butterfly on a leaf", compat)
    assert prompt.positions == [[1], [2, 3, 4], [5], [6], [7]]
    assert prompt.find("butterfly") == [2, 3, 4]
    assert prompt.find("a") == [1, 6]
    assert prompt.find("butter") == []


def test_a_word_is_found_beside_punctuation_but_not_by_the_published_code() -> None:
    assert parse("a red robot, alone").find("Robot") == [3, 4, 5]
    assert parse("a red robot, alone", "reference").find("robot") == []
    assert parse("a red robot, alone", "reference").find("robot,") == [3, 4, 5]


def test_two_blanks_shift_words_in_the_published_code_only() -> None:
    assert parse("a  red cat").find("cat") == [3]
    assert parse("a  red cat", "reference").find("red") == [3]


def test_what_the_model_does_not_see_is_left_out() -> None:
    prompt = parse("a butterfly on a leaf", max_tokens=6)
    assert len(prompt.ids) == 6
    assert prompt.ids[-1] == TEXTS[">"]
    assert prompt.positions == [[1], [2, 3, 4], [], [], []]
    for other in (parse("a cat", max_tokens=6), prompt):
        for aligned in (refine(prompt, other, 6), refine(other, prompt, 6)):
            assert aligned.source_share.shape == (6, 6)


def test_refine_matches_equal_tokens_in_order_and_leaves_new_ones_alone() -> None:
    source, target = parse("a cup on the table"), parse("a hot cup on a big table")
    aligned = refine(source, target, LENGTH)
    new = [2, 5, 6]
    assert aligned.target_share.nonzero().flatten().tolist() == new
    assert torch.equal(aligned.source_share.sum(dim=0), 1 - aligned.target_share)
    matched = aligned.source_share[:, : len(target.ids)].nonzero().tolist()
    assert matched == sorted(matched)
    assert all(source.ids[i] == target.ids[j] for i, j in matched)


def test_equal_prompts_are_aligned_as_they_are() -> None:
    prompt = parse("a cat on a mat")
    for aligned in (refine(prompt, prompt, LENGTH), replace(prompt, prompt, LENGTH)):
        assert aligned is not None
        assert torch.equal(aligned.source_share, torch.eye(LENGTH))
        assert not aligned.target_share.any()


@pytest.mark.parametrize("compat", ["exact", "reference"])
def test_replace_shares_a_words_attention_evenly(compat: Compat) -> None:
    source, target = parse("a butterfly on leaf", compat), parse("a dog on leaf", compat)
    there = replace(target, source, LENGTH)
    assert there is not None
    assert there.source_share[2].nonzero().flatten().tolist() == [2, 3, 4]
    assert there.source_share[2, 2:5].tolist() == pytest.approx([1 / 3] * 3)
    back = replace(source, target, LENGTH)
    assert back is not None
    assert back.source_share[:, 2].nonzero().flatten().tolist() == [2, 3, 4]


def test_replace_matches_what_stands_behind_the_last_new_word() -> None:
    source, target = parse("a butterfly on leaf"), parse("a dog on leaf")
    aligned = replace(source, target, LENGTH)
    assert aligned is not None
    assert aligned.source_share[5, 3] == aligned.source_share[6, 4] == 1  # on, leaf
    assert torch.equal(aligned.source_share.sum(dim=1), torch.ones(LENGTH))  # nothing is lost
    # No source is left for the last two.
    assert aligned.target_share.nonzero().flatten().tolist() == [14, 15]
    published = replace(
        parse("a butterfly on leaf", "reference"), parse("a dog on leaf", "reference"), LENGTH
    )
    assert published is not None
    assert published.source_share[3, 3] == published.source_share[4, 4] == 1


def test_replace_is_for_as_many_words() -> None:
    assert replace(parse("a cat"), parse("a big cat"), LENGTH) is None


def test_the_schedule_has_a_step_too_many_and_bounds_of_a_words_own() -> None:
    target = parse("a red cat")
    schedule = cross_schedule(target, 10, LENGTH, (0.1, 0.4), {"red": (0.5, 1.0), "dog": (0, 1)})
    expected = torch.zeros(11, LENGTH)
    expected[1:4] = 1  # of 11: .1 and .4 are 1.1 and 4.4
    expected[:, 2] = 0
    expected[5:, 2] = 1
    assert torch.equal(schedule, expected)
