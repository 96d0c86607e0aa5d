"""How a section of settings is declared (``setting``), built of plain values (``built``), checked.

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

    low, high: bounds of the number. valid: what else must be true of the value. wanted: what it
    must be, in words that stand behind its name, where type and bounds do not say it. heading: of
    this setting and those that follow, in --help and docs/settings.md.
    """
    about = {"comment": comment, "low": low, "high": high, "valid": valid, "wanted": wanted}
    return field(default=default, metadata=about | {"heading": heading})


@dataclass(frozen=True, kw_only=True)
class Section:
    """Settings that are checked when they are made. ``place`` is the section's name in conf/."""

    place: ClassVar[str] = ""

    def __post_init__(self) -> None:
        types = get_type_hints(type(self))
        for entry in fields(self):
            name, value = f"{self.place}{entry.name}", getattr(self, entry.name)
            about = entry.metadata
            bounds = about.get("low"), about.get("high")
            right = suits(value, types[entry.name], *bounds)
            if about.get("wanted") and not (right and about["valid"](value)):
                raise refusal(name, value, about["wanted"])
            check_value(name, value, types[entry.name], *bounds)

    def plain(self) -> dict[str, Any]:
        """As YAML and JSON have it: sections are dicts, lists are lists."""
        return _plain(asdict(self))

    def yaml(self) -> str:
        """As ``config.yaml`` of a run's results has it."""
        return OmegaConf.to_yaml(OmegaConf.create(self.plain()))


B = TypeVar("B", bound=Section)


def built(kind: type[B], values: Mapping[str, Any]) -> B:
    """The section of these plain values; sections of sections are built first."""
    types = get_type_hints(kind)
    known = [f"{kind.place}{entry.name}" for entry in fields(kind)]
    arguments = {}
    for key, value in values.items():
        name = f"{kind.place}{key}"
        if name not in known:
            raise BenchmarkError(unknown(name, known))
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
    """What stands in no group, with ??? for what the user must give."""
    return {
        entry.name: "???" if entry.default is MISSING else _plain(entry.default)
        for entry in fields(kind)
        if entry.metadata
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
