"""The texts of one scene as the model's tokenizer sees them, and which of their words change."""

from functools import cached_property

from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Ablation, Backbone, Prompt
from piebench_masks.diffusion.prompt_diff import (
    Compat,
    PromptDiff,
    ablation,
    changed_columns,
    prompt_diff,
    token_weights,
)
from piebench_masks.masks.needs import Condition, Text

Encoded = tuple[Prompt, Ablation]
"""A text, and which of its tokens' embeddings are zeroed."""


class SceneTexts:
    """The texts of one scene, as the model's tokenizer sees them. Raises PromptError at use."""

    def __init__(self, backbone: Backbone, scene: Scene, compat: Compat) -> None:
        self._backbone, self._scene, self._compat = backbone, scene, compat
        self.max_tokens = backbone.max_tokens

    @cached_property
    def _ids(self) -> tuple[list[int], list[int]]:
        tokenize = self._backbone.tokenize
        return tokenize(self._scene.source_prompt), tokenize(self._scene.target_prompt)

    @cached_property
    def _diff(self) -> PromptDiff:
        return prompt_diff(*self._ids, max_tokens=self.max_tokens, compat=self._compat)

    def encoded(self, text: Condition | Text) -> Encoded:
        """What the text encoders are given."""
        if text == "source_concept":
            return self._scene.source_concept, Ablation()
        if text == "target_concept":
            return self._scene.target_concept, Ablation()
        if text == "probe_ablated":
            probe = self._text("probe")
            return probe, ablation(self._diff, self._backbone.spans(probe), self._compat)
        return self._text(text), Ablation()

    def _text(self, text: Condition | Text) -> str:
        name = self._diff.probe if text == "probe" else text
        texts = {
            "source": self._scene.source_prompt,
            "target": self._scene.target_prompt,
            "blended_words": self._scene.blended_words,
            "instruction": self._scene.instruction,
        }
        return texts[name]

    def weights(self, condition: Condition) -> Tensor:
        """Weights [L] that turn a sum over text positions into the mean over the changed words."""
        side = condition if condition in ("source", "target") else self._diff.probe
        if side == self._diff.probe:
            return token_weights(self._diff, self.max_tokens)
        source, target = (self.tokens(name) for name in ("source", "target"))
        columns = changed_columns(source, target)[side == "target"]
        return token_weights(PromptDiff(side, columns, ()), self.max_tokens)

    def tokens(self, text: Condition | Text) -> tuple[int, ...]:
        """Its ids, with BOS and EOS, as many as the model sees; none of several captions."""
        prompt, _ = self.encoded(text)
        if not isinstance(prompt, str):
            return ()
        ids = self._backbone.tokenize(prompt)
        return (*ids[: self.max_tokens - 1], ids[-1]) if len(ids) > self.max_tokens else tuple(ids)
