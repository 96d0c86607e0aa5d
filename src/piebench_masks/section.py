"""Sections of settings: declared (``setting``), built of plain values (``built``), and checked.

Knows no setting.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

from omegaconf import OmegaConf

from piebench_masks.errors import BenchmarkError
from piebench_masks.values import check_value, converted, refusal, suits, unknown


def setting(
    default: Any = MISSING,
    comment: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    valid: Callable[[Any], bool] = lambda value: True,
    wanted: str | None = None,
    heading: str | None = None,
) -> Any:
    """A field of a section.

    low, high: bounds of the number. valid: a further test of the value. wanted: the words behind
    its name in the message, where type and bounds do not say enough. heading: of this setting and
    those that follow, in --help and docs/settings.md.
    """
    metadata = {"comment": comment, "low": low, "high": high, "valid": valid, "wanted": wanted}
    return field(default=default, metadata=metadata | {"heading": heading})


@dataclass(frozen=True, kw_only=True)
class Section:
    """Settings that are checked when they are made. ``place`` is the section's name in conf/."""

    place: ClassVar[str] = ""

    def __post_init__(self) -> None:
        types = get_type_hints(type(self))
        for entry in fields(self):
            name, value = f"{self.place}{entry.name}", getattr(self, entry.name)
            metadata = entry.metadata
            bounds = metadata.get("low"), metadata.get("high")
            right = suits(value, types[entry.name], *bounds)
            if metadata.get("wanted") and not (right and metadata["valid"](value)):
                raise refusal(name, value, metadata["wanted"])
            check_value(name, value, types[entry.name], *bounds)

    def check_parts(self) -> None:
        """Raise BenchmarkError for a part that is not there or does not take its settings."""

    def plain(self) -> dict[str, Any]:
        """As YAML and JSON have it: sections are dicts, lists are lists."""
        return _plain(asdict(self))

    def yaml(self) -> str:
        """The text of ``config.yaml`` in a run's results."""
        return OmegaConf.to_yaml(OmegaConf.create(self.plain()))


B = TypeVar("B", bound=Section)


def built(kind: type[B], values: Mapping[str, Any]) -> B:
    """The section of these plain values; sections of sections are built first."""
    types = get_type_hints(kind)
    names = [f"{kind.place}{entry.name}" for entry in fields(kind)]
    arguments = {}
    for key, value in values.items():
        name = f"{kind.place}{key}"
        if name not in names:
            raise BenchmarkError(unknown(name, names))
        inner = [t for t in (types[key], *get_args(types[key])) if is_dataclass(t)]
        if inner and isinstance(value, Mapping):
            arguments[key] = built(inner[0], value)  # type: ignore[type-var, arg-type]
        else:
            arguments[key] = converted(value, types[key])
    for entry in fields(kind):
        if entry.default is entry.default_factory is MISSING and entry.name not in values:
            raise BenchmarkError(
                f"{kind.place}{entry.name} must be set: {entry.metadata.get('comment', '')}"
            )
    return kind(**arguments)


def defaults(kind: type[Section]) -> dict[str, Any]:
    """The settings that are in no group; ??? for those that the user must give."""
    return {
        entry.name: "???" if entry.default is MISSING else _plain(entry.default)
        for entry in fields(kind)
        if entry.metadata
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
