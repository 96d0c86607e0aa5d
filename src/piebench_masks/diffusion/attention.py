"""The U-Net's attention, read and replaced through diffusers' own processor interface.

Knows one attention layer at a time; must not know prompts or methods.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

Place = Literal["down", "mid", "up"]
"""On the U-Net's way down, in its middle or on its way up."""


@dataclass(frozen=True)
class Layer:
    """An attention layer.

    block: its transformer block, numbered from 0 as they are evaluated; kind: cross attends to the
    text, self to the picture; grid: the side of its queries' grid; place: where it is.
    """

    block: int
    kind: Literal["cross", "self"]
    grid: int
    place: Place

    @property
    def is_cross(self) -> bool:
        return self.kind == "cross"


@dataclass(frozen=True)
class Residual:
    """A ResNet block, whose residual a control may see.

    block: the number of the first transformer block behind it; grid: its side; place: where it is.
    """

    block: int
    grid: int
    place: Place


class Projections:
    """Query, key and value of one layer, for the rows of one U-Net call, computed at first use.

    query [rows, heads, Q, d]; key, value [rows, heads, L, d]; L text positions, or the Q places of
    the picture; context: the hidden states [rows, L, D] of these; scale: 1 / sqrt(d).
    """

    def __init__(self, attention: Any, hidden_states: Tensor, text: Tensor | None) -> None:
        self.queries: int = hidden_states.shape[1]
        self.scale: float = attention.scale
        self._attention, self._hidden = attention, hidden_states
        self.context = hidden_states if text is None else text

    @cached_property
    def query(self) -> Tensor:
        return self._heads(self._attention.to_q(self._hidden))

    @cached_property
    def key(self) -> Tensor:
        return self.key_of(self.context)

    @cached_property
    def value(self) -> Tensor:
        return self.value_of(self.context)

    def key_of(self, context: Tensor) -> Tensor:
        """``key`` of other hidden states [rows, L, D]."""
        return self._heads(self._attention.to_k(context))

    def value_of(self, context: Tensor) -> Tensor:
        """``value`` of other hidden states [rows, L, D]."""
        return self._heads(self._attention.to_v(context))

    @cached_property
    def probabilities(self) -> Tensor:
        """softmax(q k^T / sqrt(d)): [rows, heads, Q, L] float32.

        The fused kernel does not return them. In float32: half precision loses the tail of the
        softmax, and the method `ours` is a difference of two of them.
        """
        return self._softmax(self.query, self.key)

    def row_probabilities(self, row: int, text: Tensor | None = None) -> Tensor:
        """``probabilities`` of one row alone: [1, heads, Q, L], however many rows there are.

        text: [L, D] hidden states whose keys take the place of those of the row's own text.
        """
        index = slice(row, row + 1)
        if text is None:
            return self._softmax(self.query[index], self.key[index])
        return self._softmax(self.query[index], self.key_of(text[None]))

    def _softmax(self, query: Tensor, key: Tensor) -> Tensor:
        scores = query.float() @ key.float().transpose(-1, -2)
        return (scores * self.scale).softmax(dim=-1)

    def _heads(self, tensor: Tensor) -> Tensor:
        return self._attention.head_to_batch_dim(tensor, out_dim=4)


class AttentionControl:
    """May look at every attention layer of one U-Net call and answer in its place.

    ``resnets``: names of the ResNet blocks whose residual it wants to see, too. ``differentiable``:
    whether predictions have a gradient because of its answers.
    """

    resnets: tuple[str, ...] = ()
    differentiable: bool = False
    rows: Tensor

    def select(self, rows: Tensor) -> None:
        """``rows``: the part of the batch, as indices, that the next layers are about."""
        self.rows = rows

    def attend(self, layer: Layer, projections: Projections) -> Tensor | None:
        """The layer's output, [rows, heads, Q, d]; None: the model's own."""
        return None

    def residual(self, name: str, hidden: Tensor) -> Tensor:
        """What ResNet block ``name`` adds to its input; hidden: what it would add, [rows,C,h,w]."""
        return hidden


class AttentionRecorder(AttentionControl):
    """How strongly each place of the picture looks at some tokens, for the rows of one U-Net call.

    token_weights: [B, L], each row's weights of the text positions; map_size: the side g of the
    layers to read, those with g * g queries (methods.md, section 2), that lie in ``places``.
    maps: [B, g, g] float32, weighted over tokens, mean over heads, summed over layers. Reduced
    layer by layer, so no attention tensor outlives its layer.
    """

    def __init__(
        self,
        token_weights: Tensor,
        map_size: int,
        places: Collection[Place] = ("down", "mid", "up"),
    ) -> None:
        self.token_weights, self.places = token_weights.float(), places
        self.maps = torch.zeros(
            len(token_weights), map_size, map_size, device=self.token_weights.device
        )

    def select(self, rows: Tensor) -> None:
        """Start over with ``rows``."""
        super().select(rows)
        self.maps[rows] = 0.0

    def attend(self, layer: Layer, projections: Projections) -> None:
        is_read = layer.is_cross and layer.place in self.places
        if is_read and projections.queries == self.maps[0].numel():
            self.add(projections.probabilities)

    def add(self, probabilities: Tensor) -> None:
        """Add one layer's [rows, heads, g * g, L]."""
        weights = self.token_weights[self.rows]
        layer = torch.einsum("rhql,rl->rq", probabilities, weights) / probabilities.shape[1]
        self.maps[self.rows] += layer.unflatten(1, self.maps.shape[1:])


@dataclass(frozen=True)
class ControlledProcessor:
    """A model's own attention processor, unless a control of the call answers in its place.

    The control is an argument of each call (``cross_attention_kwargs={"control": ...}``): nothing
    is kept here between calls, and without one the inner processor is all there is.
    """

    inner: Any
    layer: Layer

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        control: AttentionControl | None = None,
    ) -> Tensor:
        if control is not None:
            projections = Projections(attention, hidden_states, encoder_hidden_states)
            answer = control.attend(self.layer, projections)
            if answer is not None:
                hidden = answer.transpose(1, 2).flatten(2).to(hidden_states.dtype)
                return attention.to_out[1](attention.to_out[0](hidden))
        return self.inner(attention, hidden_states, encoder_hidden_states, attention_mask, temb)
