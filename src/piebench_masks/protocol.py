"""Protocols: how stored edits are scored and summed up. Numbers compare under the same one only.

docs/protocols.md says what each switch does to the numbers. Knows no metric.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from hydra.core.config_store import ConfigStore

from piebench_masks.errors import BenchmarkError
from piebench_masks.section import Section, defaults, setting

OFFICIAL = "official"
"""The protocol of PnP Inversion's evaluator, which every switch has as its default."""
RANDOM = "Random"
"""PIE-Bench's edit type that is no type, which some leave out."""


def differing(switches: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The switches whose value is another one in ``others``."""
    return {name: value for name, value in switches.items() if value != others.get(name)}


class Casing(NamedTuple):
    """The switches of a protocol that change what a metric is shown."""

    size: Literal["mask", "picture"] | int = "mask"
    border: Literal["set", "annotated", "cleared"] = "set"
    part: Literal["mask", "box", "editor"] = "mask"
    brackets: Literal["removed", "kept"] = "removed"

    def as_read(self, reads: Sequence[str]) -> "Casing":
        """What is left of it for a metric that looks at no more than this."""
        kept = ["size"]
        kept += ["border", "part"] if "mask" in reads else []
        kept += ["brackets"] if "prompts" in reads else []
        return Casing(**{name: getattr(self, name) for name in kept})

    @property
    def unusual(self) -> dict[str, Any]:
        """What differs from the official protocol: all that artifact keys name of it."""
        return differing(self._asdict(), Casing()._asdict())

    @property
    def fields(self) -> set[str]:
        """Fields of a sample that scores depend on beside those that metrics and editors read."""
        annotated = {"annotation"} if self.border != "set" or self.part == "box" else set()
        return {"mask"} | annotated | ({"texts"} if self.brackets == "kept" else set())


@dataclass(frozen=True, kw_only=True)
class Protocol(Section):
    """One protocol: a YAML in conf/protocol/, whose defaults are those of the official one."""

    place: ClassVar[str] = "protocol."

    edit_types: Literal["all", "without_random"] | tuple[str, ...] = setting(
        "all",
        "whose samples are scored: all | without_random | a list of the data set's",
        valid=lambda chosen: chosen != (),
        wanted="it must be all, without_random, or a list of edit types",
    )
    size: Literal["mask", "picture"] | int = setting(
        "mask",
        "at which pictures are scored: the mask's | the source picture's own | its shorter side",
        low=16,
        high=4096,
        wanted="it must be mask, picture, or a number of pixels from 16 to 4096",
    )
    border: Literal["set", "annotated", "cleared"] = setting(
        "set", "the mask's outermost dataset.load.border pixels: counted as edited, or not"
    )
    part: Literal["mask", "box", "editor"] = setting(
        "mask",
        "what counts as edited: the annotated mask | the bounding box of what it has within that "
        "border | the mask that the edit was made under",
    )
    undefined: Literal["left_out", "zero"] = setting(
        "left_out", "what an undefined value is in a mean, as of a background without a pixel"
    )
    brackets: Literal["removed", "kept"] = setting(
        "removed", "around changed words, in the prompts that CLIP is given"
    )
    metrics: dict[str, dict[str, Any]] | None = setting(
        None,
        "settings of metrics that are others here: {lpips: {net: alex}}",
        wanted="it must be null, or settings by metric ({lpips: {net: alex}})",
    )

    @property
    def casing(self) -> Casing:
        return Casing(self.size, self.border, self.part, self.brackets)

    @property
    def unusual(self) -> str:
        """The switches that differ from the official protocol's, in words."""
        differences = differing(self.plain(), Protocol().plain())
        return ", ".join(f"{name} {value}" for name, value in differences.items())

    def scored_types(self, edit_types: Sequence[str], name: str) -> list[str]:
        """Which of the data set's edit types are scored; BenchmarkError where one is none of it."""
        if self.edit_types == "all":
            return [*edit_types]
        if self.edit_types == "without_random":
            return [label for label in edit_types if label != RANDOM]
        if unknown := {*self.edit_types} - {*edit_types}:
            raise BenchmarkError(
                f"protocol.{name}.edit_types has {min(unknown)!r}, which the data set has not: "
                f"choose of {', '.join(edit_types)}"
            )
        return [label for label in edit_types if label in self.edit_types]

    def digest(self, metrics: Mapping[str, Any]) -> str:
        """12 hex digits of all switches and of the metrics' identities."""
        text = json.dumps({"switches": self.plain(), "metrics": metrics}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


ConfigStore.instance().store("switches", defaults(Protocol))
