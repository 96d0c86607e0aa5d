"""Prompts as a diffusers pipeline's text encoders see them, with words left out where asked for.

Knows tokenizers and encoders; must not know what the embeddings are for.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from piebench_masks.batching import Blocks
from piebench_masks.diffusion.backbone import Ablation, Conditioning, Prompt, Span

CACHED_PROMPTS = 1024
"""The most prompts whose embeddings stay in memory, 0.3 GB of SDXL's in half precision."""
NOTHING = Ablation()


class Text:
    """The tokenizers and text encoders of Stable Diffusion 1 and 2 (one) or SDXL (two)."""

    def __init__(
        self,
        tokenizers: Sequence[Any],
        encoders: Sequence[Any],
        *,
        device: torch.device,
        rows: int,
        counts: Counter[str],
    ) -> None:
        self._tokenizers, self._device, self._counts = tokenizers, device, counts
        self._encoders = [each.to(device).eval().requires_grad_(False) for each in encoders]
        self._blocks = Blocks(rows)
        self._texts: dict[tuple[str, Ablation], Tensor] = {}
        self._width: int = sum(each.config.hidden_size for each in encoders)
        self.is_xl = len(encoders) == 2
        self.max_tokens: int = tokenizers[0].model_max_length

    def tokenize(self, prompt: str) -> list[int]:
        return self._tokenizers[0](prompt, verbose=False).input_ids

    def token_text(self, token_id: int) -> str:
        return self._tokenizers[0].decode([token_id], clean_up_tokenization_spaces=False)

    def spans(self, prompt: str) -> list[Span]:
        return _offsets(self._tokenizers[0], prompt)

    @torch.inference_mode()
    def encode(
        self, prompts: Sequence[Prompt], ablate: Sequence[Ablation] | None = None
    ) -> Conditioning:
        """SDXL: both encoders' penultimate hidden states, and the second one's pooled embedding;
        Stable Diffusion 1 and 2: the only one's last hidden state. Equal ones are encoded once. Of
        several texts for one prompt it is the mean.
        """
        groups = [(prompt,) if isinstance(prompt, str) else prompt for prompt in prompts]
        ablations = ablate or [NOTHING] * len(prompts)
        texts = [
            [(text, ablation) for text in group]
            for group, ablation in zip(groups, ablations, strict=True)
        ]
        distinct = dict.fromkeys(text for group in texts for text in group)
        if new := [text for text in distinct if text not in self._texts]:
            self._texts |= zip(new, self._encode(new), strict=True)
        means = [torch.stack([self._texts[text] for text in group]).mean(dim=0) for group in texts]
        encoded = torch.stack(means).to(self._device)
        for text in list(self._texts)[:-CACHED_PROMPTS]:
            del self._texts[text]
        shape = (self.max_tokens, self._width)
        hidden_size = shape[0] * shape[1]
        return Conditioning(encoded[:, :hidden_size].unflatten(1, shape), encoded[:, hidden_size:])

    def _encode(self, texts: Sequence[tuple[str, Ablation]]) -> Tensor:
        """Hidden states, flat, and pooled embedding of different texts: [B, L D + P]."""
        token_ids, zeroed = [], []
        for tokenizer in self._tokenizers:
            rows = tokenizer(
                [prompt for prompt, _ in texts],
                padding="max_length",
                truncation=True,
                return_tensors="pt",
            )
            token_ids.append(rows.input_ids)
            each = zip(texts, rows.input_ids, rows.attention_mask.bool(), strict=True)
            zeroed.append(torch.stack([_zeroed(tokenizer, *row) for row in each]))

        def encode(*block: Tensor) -> Tensor:
            hidden = []
            count = len(self._encoders)
            for encoder, ids, zero in zip(
                self._encoders, block[:count], block[count:], strict=True
            ):
                with _zeroed_embeddings(encoder, zero.to(self._device)):
                    output = encoder(ids.to(self._device), output_hidden_states=True)
                hidden.append(output.hidden_states[-2] if self.is_xl else output.last_hidden_state)
            # The second encoder's pooled embedding rides along: a block is one tensor.
            pooled = [output.text_embeds] if self.is_xl else []
            return torch.cat([torch.cat(hidden, dim=-1).flatten(1), *pooled], dim=1)

        self._counts["prompt_encodes"] += len(texts)
        return self._blocks.map(encode, *token_ids, *zeroed).cpu()


def _offsets(tokenizer: Any, prompt: str) -> list[Span]:
    encoded = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
    return [tuple(span) for span in encoded.offset_mapping]


def _zeroed(
    tokenizer: Any, text: tuple[str, Ablation], token_ids: Tensor, is_prompt: Tensor
) -> Tensor:
    """Which positions are zeroed: bool [L]. is_prompt: bool [L], those that are not padding."""
    prompt, ablation = text
    zeroed = torch.isin(token_ids, torch.tensor(sorted(ablation.ids), dtype=torch.long))
    if not ablation.spans:
        return zeroed
    tokens = zip(tokenizer.encode(prompt, verbose=False), _offsets(tokenizer, prompt), strict=True)
    span_ids = {
        token
        for token, (start, stop) in tokens
        if any(start < last and first < stop for first, last in ablation.spans)
    }
    ids = torch.tensor(sorted(span_ids), dtype=torch.long)
    return zeroed | (torch.isin(token_ids, ids) & is_prompt)


@contextmanager
def _zeroed_embeddings(encoder: Any, zeroed: Tensor) -> Iterator[None]:
    """The encoder with its token embeddings zeroed where ``zeroed`` [B, L] says so."""

    def zero(module: nn.Module, args: tuple[Any, ...], embeddings: Tensor) -> Tensor:
        return embeddings.masked_fill(zeroed[..., None], 0.0)

    hook = encoder.get_input_embeddings().register_forward_hook(zero)
    try:
        yield
    finally:
        hook.remove()
