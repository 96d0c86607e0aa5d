"""What changed between two prompts, as the model sees it and as the reference saw it."""

from collections.abc import Sequence

import pytest
import torch

from piebench_masks.diffusion.prompt_diff import (
    Compat,
    PromptDiff,
    PromptError,
    prompt_diff,
    token_weights,
)

BOS, EOS = 100, 101


def diff(source: Sequence[int], target: Sequence[int], compat: Compat = "exact") -> PromptDiff:
    return prompt_diff([BOS, *source, EOS], [BOS, *target, EOS], max_tokens=8, compat=compat)


@pytest.mark.parametrize("compat", ["exact", "reference"])
def test_one_kind_of_change_is_read_in_the_prompt_that_has_the_words(compat: Compat) -> None:
    assert diff([1, 2, 3], [1, 3], compat) == PromptDiff("source", (2,), (2,))
    assert diff([1, 2, 3], [1, 9, 3], compat) == PromptDiff("source", (2,), (2,))
    assert diff([1, 3], [1, 2, 3], compat) == PromptDiff("target", (2,), (2,))


def test_exact_reads_only_the_probe_and_each_id_once() -> None:
    assert diff([1, 2, 3, 4], [1, 9, 3, 7, 4]) == PromptDiff("source", (2,), (2,))
    assert diff([1, 2, 3, 2], [1, 3]) == PromptDiff("source", (2, 4), (2,))


def test_reference_lists_deleted_ids_twice_beside_replaced_ones() -> None:
    # 1 is replaced, 4 5 are deleted
    found = diff([1, 2, 3, 4, 5, 6], [9, 2, 3, 6], "reference")
    assert found == PromptDiff("source", (4, 5, 1), (4, 5, 4, 5, 1))


def test_reference_mixes_target_ids_and_columns_into_the_source() -> None:
    # 1 is deleted (source position 1, where the target has 2), 8 is inserted at target position 3
    found = diff([1, 2, 3, 4], [2, 3, 8, 4], "reference")
    assert found == PromptDiff("source", (1, 3), (1, 2, 8))


def test_identical_prompts() -> None:
    assert diff([1, 2], [1, 2]).columns == ()
    with pytest.raises(PromptError, match="exact"):
        diff([1, 2], [1, 2], "reference")


def test_a_change_past_the_last_visible_token() -> None:
    source, target = [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 9]
    unseen = diff(source, target)
    assert token_weights(unseen, 8).eq(0).all()
    assert token_weights(diff(source, target, "reference"), 8).isnan().all()


def test_reference_drops_the_unseen_part_of_a_change() -> None:
    found = diff([1, 2, 3, 4, 5, 6, 7, 8], [9, 2, 3, 4, 5, 6, 9, 8], "reference")
    assert found.columns == (1, 7)
    assert token_weights(found, 7).tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_weights_are_a_mean_over_columns_with_repetition() -> None:
    weights = token_weights(PromptDiff("source", (1, 3, 3), ()), 4)
    torch.testing.assert_close(weights, torch.tensor([0, 1 / 3, 0, 2 / 3]))
