"""Grouped cross-attention (D-Edit, arXiv 2403.04880): items of a picture attend to their own texts.

Knows masks and embeddings; must not know where they come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.diffusion.attention import AttentionControl, Layer, Projections
from piebench_masks.diffusion.backbone import Conditioning
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.items.mask_edits import on_grid


@dataclass(frozen=True)
class ItemTexts:
    """What the items of one picture attend to.

    masks: bool [n, H, W]; texts: of each item hidden states [L_i, D]; pooled: [P], of all together,
    P = 0 where the model has none.
    """

    masks: Tensor
    texts: Sequence[Tensor]
    pooled: Tensor


class GroupedAttention(AttentionControl):
    """Cross-attention in which every place of the picture attends to the texts of its own items.

    A place's output is the sum over the items that it lies in, each with a softmax over all of its
    own text; a place in none has the output 0. An item with the whole picture has ordinary
    attention.

    groups: item texts, one or more; owner: long [B], the group of every row; latent_size: (h, w).
    """

    def __init__(
        self, groups: Sequence[ItemTexts], owner: Tensor, latent_size: tuple[int, int]
    ) -> None:
        self.groups, self.owner = groups, owner
        self.differentiable = any(text.requires_grad for group in groups for text in group.texts)
        self._sizes = {height * width: (height, width) for height, width in _halvings(latent_size)}
        self._places: dict[tuple[int, int], list[Tensor]] = {}

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        owner = self.owner[rows.to(self.owner.device)]
        self._present, self._owner = sorted(set(owner.tolist())), owner.to(rows.device)

    def attend(self, layer: Layer, projections: Projections) -> Tensor | None:
        if not layer.is_cross:
            return None
        answer = self._grouped(self._present[0], projections)
        # Every group answers for all rows, so that no row's sums depend on the other rows' groups.
        for number in self._present[1:]:
            is_own = (self._owner == number)[:, None, None, None]
            answer = torch.where(is_own, self._grouped(number, projections), answer)
        return answer

    def _grouped(self, number: int, projections: Projections) -> Tensor:
        query, scale = projections.query, projections.scale
        answer = torch.zeros_like(query)
        places = self._places_of(number, projections.queries, query.device)
        for where, text in zip(places, self.groups[number].texts, strict=True):
            if len(where):
                context = text.to(query)[None]
                key, value = projections.key_of(context), projections.value_of(context)
                shape = (len(query), *key.shape[1:])
                attended = F.scaled_dot_product_attention(
                    query[:, :, where], key.expand(shape), value.expand(shape), scale=scale
                )
                answer = answer.index_add(2, where, attended)
        return answer

    def _places_of(self, number: int, queries: int, device: torch.device) -> list[Tensor]:
        """Of every item of a group, the places on the grid of so many queries: long."""
        if (number, queries) not in self._places:
            masks = on_grid(self.groups[number].masks, self._sizes[queries])
            self._places[number, queries] = [m.flatten().nonzero()[:, 0].to(device) for m in masks]
        return self._places[number, queries]


def predict_noise(
    backbone: StableDiffusion,
    latents: Tensor,
    timesteps: Tensor,
    groups: Sequence[ItemTexts],
    owner: Tensor,
) -> Tensor:
    """The noise in B rows of latents [B, C, h, w] at timesteps [B], whose items attend to theirs.

    groups, owner: as in `GroupedAttention`. float32; has a gradient where a text or a weight of the
    backbone asks for one.
    """
    control = GroupedAttention(groups, owner, (latents.shape[-2], latents.shape[-1]))
    # Cross-attention does not look at these: the control answers in its place.
    nothing = torch.zeros(
        len(latents),
        1,
        backbone.text.width,
        device=backbone.device,
        dtype=backbone.dtype,
    )
    pooled = torch.stack([group.pooled for group in groups])[owner.to(backbone.device)]
    conditioning = Conditioning(nothing, pooled.to(backbone.dtype))
    return backbone.predict_noise(latents, timesteps, conditioning, control)


def no_texts(backbone: StableDiffusion, masks: Tensor) -> ItemTexts:
    """What unconditional rows attend to everywhere: zeros. masks: bool [n, H, W], for the size."""
    text = backbone.text
    hidden = torch.zeros(text.max_tokens, text.width, device=backbone.device)
    pooled = torch.zeros(text.pooled_width, device=backbone.device)
    return ItemTexts(torch.ones_like(masks[:1]), [hidden], pooled)


def _halvings(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes of a U-Net's grids, from the latents' on."""
    sizes = [size]
    while max(size) > 1:
        size = (size[0] + 1) // 2, (size[1] + 1) // 2
        sizes.append(size)
    return sizes
