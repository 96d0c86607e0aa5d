"""Each place of the picture attends to the texts of its own items, and to no other."""

from typing import Any

import pytest
import torch
from torch import Tensor

from piebench_masks.diffusion.attention import Layer
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.items.attention import GroupedAttention, ItemTexts, no_texts, predict_noise

GRID, WIDTH, ROWS = 8, 6, 2
CROSS = Layer(0, "cross", GRID, "mid")


class Projections:
    """Of one head; keys and values are linear in the text."""

    scale = WIDTH**-0.5

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.query = torch.randn(ROWS, 1, GRID**2, WIDTH, generator=generator)
        self.queries = GRID**2
        self._key, self._value = torch.randn(2, WIDTH, WIDTH, generator=generator)

    def key_of(self, context: Tensor) -> Tensor:
        return (context @ self._key)[:, None]

    def value_of(self, context: Tensor) -> Tensor:
        return (context @ self._value)[:, None]


def attended(*groups: ItemTexts, owner: tuple[int, ...] = (0, 0)) -> Tensor:
    """[rows, places, d]"""
    attention = GroupedAttention(groups, torch.tensor(owner), (2 * GRID, 2 * GRID))
    attention.select(torch.arange(ROWS))
    projections: Any = Projections()
    answer = attention.attend(CROSS, projections)
    assert answer is not None
    return answer[:, 0]


def texts(*lengths: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, WIDTH, generator=generator) for length in lengths]


def halves() -> Tensor:
    """Left and right of 32x32 pixels."""
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, :, :16] = masks[1, :, 16:] = True
    return masks


def test_a_place_depends_on_the_text_of_its_own_item_alone() -> None:
    first, second, other = texts(5, 7, 9)
    before = attended(ItemTexts(halves(), [first, second], torch.zeros(0)))
    after = attended(ItemTexts(halves(), [first, other], torch.zeros(0)))
    left = torch.arange(GRID**2) % GRID < GRID // 2
    assert torch.equal(before[:, left], after[:, left])
    assert (before[:, ~left] != after[:, ~left]).any(dim=-1).all()


def test_a_place_of_no_item_has_nothing_and_one_of_two_has_their_sum() -> None:
    first, second = texts(5, 7)
    masks = halves()
    masks[1] = masks[0]
    both = attended(ItemTexts(masks, [first, second], torch.zeros(0)))
    alone = [attended(ItemTexts(masks[:1], [text], torch.zeros(0))) for text in (first, second)]
    left = torch.arange(GRID**2) % GRID < GRID // 2
    torch.testing.assert_close(both, alone[0] + alone[1])
    assert (both[:, ~left] == 0).all() and (both[:, left] != 0).any()


def test_rows_of_several_groups_are_as_they_would_be_alone() -> None:
    groups = [ItemTexts(halves(), texts(5, 7, seed=s), torch.zeros(0)) for s in (1, 2)]
    mixed = attended(*groups, owner=(1, 0))
    for row, group in enumerate((1, 0)):
        assert torch.equal(mixed[row], attended(groups[group])[row])


@pytest.mark.parametrize("size", [(16, 16), (16, 8)])
def test_an_item_with_the_whole_picture_has_ordinary_attention(
    model: StableDiffusion, size: tuple[int, int]
) -> None:
    text = model.encode_prompts(["a red circle"])
    masks = torch.ones(1, 4 * size[0], 4 * size[1], dtype=torch.bool)
    group = ItemTexts(masks, [text.hidden[0]], text.pooled[0])
    latents = torch.randn(3, 4, *size, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([999, 500, 1])
    found = predict_noise(model, latents, timesteps, [group], torch.zeros(3, dtype=torch.long))
    expected = model.predict_noise(latents, timesteps, text[[0, 0, 0]])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    nothing = predict_noise(
        model, latents, timesteps, [no_texts(model, masks)], torch.zeros(3, dtype=torch.long)
    )
    assert (found - nothing).abs().max() > 1e-2
