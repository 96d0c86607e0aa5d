"""Prompts as a diffusers pipeline's text encoders see them, with words left out where asked for.

Knows tokenizers and encoders; must not know what the embeddings are for.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
        self.tokenizers, self._device, self._counts = tokenizers, device, counts
        self.encoders = [each.to(device).eval().requires_grad_(False) for each in encoders]
        self._blocks = Blocks(rows)
        self._texts: dict[tuple[str, Ablation], Tensor] = {}
        self.width: int = sum(each.config.hidden_size for each in encoders)
        self.is_xl = len(encoders) == 2
        self.pooled_width: int = encoders[-1].config.projection_dim if self.is_xl else 0
        self.max_tokens: int = tokenizers[0].model_max_length

    def tokenize(self, prompt: str) -> list[int]:
        return self.tokenizers[0](prompt, verbose=False).input_ids

    def token_text(self, token_id: int) -> str:
        return self.tokenizers[0].decode([token_id], clean_up_tokenization_spaces=False)

    def spans(self, prompt: str) -> list[Span]:
        return _offsets(self.tokenizers[0], prompt)

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
        return self._conditioning(encoded, self.max_tokens)

    def embed(
        self, token_ids: Sequence[Tensor], ends: Tensor, new_rows: Sequence[Tensor]
    ) -> Conditioning:
        """B rows of token ids as the network is given them, some of tokens that are new.

        token_ids: of each encoder, long [B, L]; those from the end of its vocabulary on are the
        rows of its new_rows [k, d], which get a gradient where they ask for one; ends: long [B],
        the position whose embedding is the pooled one.
        """

        def encode(ends: Tensor, *token_ids: Tensor) -> Tensor:
            hidden = []
            for encoder, ids, new in zip(self.encoders, token_ids, new_rows, strict=True):
                output = self._embed(encoder, ids.to(self._device), new)
                hidden.append(output.hidden_states[-2] if self.is_xl else output.last_hidden_state)
            pooled = []
            if self.is_xl:
                rows = torch.arange(len(ends), device=self._device)
                states = output.last_hidden_state[rows, ends.to(self._device)]
                pooled = [encoder.text_projection(states)]
            return torch.cat([torch.cat(hidden, dim=-1).flatten(1), *pooled], dim=1)

        self._counts["prompt_encodes"] += len(ends)
        encoded = self._blocks.map(encode, ends, *token_ids)
        return self._conditioning(encoded, token_ids[0].shape[1])

    def _conditioning(self, encoded: Tensor, length: int) -> Conditioning:
        """From hidden states of so many positions, flat, and pooled embeddings: [B, L D + P]."""
        hidden, pooled = encoded.tensor_split([length * self.width], dim=1)
        return Conditioning(hidden.unflatten(1, (length, self.width)), pooled)

    @staticmethod
    def _embed(encoder: Any, ids: Tensor, new_rows: Tensor) -> Any:
        """The encoder's output for ids [B, L] that may lie behind its vocabulary."""
        table = encoder.get_input_embeddings()
        is_new = ids >= table.num_embeddings
        rows = new_rows.to(table.weight)[(ids - table.num_embeddings).clamp(min=0)]

        def replace(module: nn.Module, args: tuple[Any, ...], embeddings: Tensor) -> Tensor:
            return torch.where(is_new[..., None], rows, embeddings)

        with _hooked(encoder, replace):
            return encoder(ids.masked_fill(is_new, 0), output_hidden_states=True)

    def _encode(self, texts: Sequence[tuple[str, Ablation]]) -> Tensor:
        """Hidden states, flat, and pooled embedding of different texts: [B, L D + P]."""
        token_ids, zeroed = [], []
        for tokenizer in self.tokenizers:
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
            count = len(self.encoders)
            for encoder, ids, zero in zip(self.encoders, block[:count], block[count:], strict=True):
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

    with _hooked(encoder, zero):
        yield


@contextmanager
def _hooked(encoder: Any, hook: Callable[..., Tensor]) -> Iterator[None]:
    """The encoder with a hook on its token embeddings."""
    handle = encoder.get_input_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
