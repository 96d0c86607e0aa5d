"""Cross-attention of the U-Net, read through diffusers' own processor interface.

Knows one attention layer and one reduction of it; must not know prompts or methods.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class AttentionRecorder:
    """How strongly each place of the picture looks at some tokens, for the rows of one U-Net call.

    token_weights: [B, L], each row's weights of the text positions; map_size: the side g of the
    layers to read, those with g * g queries (METHODS.md, section 2).
    maps: [B, g, g] float32, weighted over tokens, mean over heads, summed over layers. Reduced
    layer by layer, so no attention tensor outlives its layer.
    """

    def __init__(self, token_weights: Tensor, map_size: int) -> None:
        self.token_weights = token_weights.float()
        self.maps = torch.zeros(
            len(token_weights), map_size, map_size, device=self.token_weights.device
        )

    def select(self, rows: Tensor) -> None:
        """Start over with ``rows``, the block of the batch that the next layers are about."""
        self._rows = rows
        self.maps[rows] = 0.0

    def reads(self, queries: int) -> bool:
        return queries == self.maps[0].numel()

    def add(self, probabilities: Tensor) -> None:
        """Add one layer's softmax(q k^T / sqrt(d)): [rows, heads, g * g, L]."""
        weights = self.token_weights[self._rows]
        layer = torch.einsum("rhql,rl->rq", probabilities, weights) / probabilities.shape[1]
        self.maps[self._rows] += layer.unflatten(1, self.maps.shape[1:])


@dataclass(frozen=True)
class RecordingProcessor:
    """A model's own attention processor, with a recorder that may look on.

    The recorder is an argument of each call (``cross_attention_kwargs={"recorder": ...}``): nothing
    is kept here between calls, and without a recorder the inner processor is all there is.
    """

    inner: Any

    def __call__(
        self,
        attention: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        recorder: AttentionRecorder | None = None,
    ) -> Tensor:
        is_cross = encoder_hidden_states is not None
        if recorder is not None and is_cross and recorder.reads(hidden_states.shape[1]):
            recorder.add(_probabilities(attention, hidden_states, encoder_hidden_states))
        return self.inner(attention, hidden_states, encoder_hidden_states, attention_mask, temb)


def _probabilities(attention: Any, hidden_states: Tensor, text: Tensor | None) -> Tensor:
    # The fused kernel does not return its probabilities. In float32: half precision loses the tail
    # of the softmax, and the difference of two of them is what the method `ours` looks at.
    query = attention.head_to_batch_dim(attention.to_q(hidden_states), out_dim=4).float()
    key = attention.head_to_batch_dim(attention.to_k(text), out_dim=4).float()
    return (query @ key.transpose(-1, -2) * attention.scale).softmax(dim=-1)
