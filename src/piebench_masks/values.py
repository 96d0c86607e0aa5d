"""Plain values (of YAML, or of the command line) against the types of what takes them.

Stricter than Python and than OmegaConf: true is no number, '3' is none either, and no number is NaN
or infinite. Knows no setting.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from sys import float_info
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from piebench_masks.errors import BenchmarkError

LARGEST = 2**62
"""The largest whole number that seeds and Parquet tables can hold alike, rounded down."""
Bound = float | None


def suits(value: Any, hint: Any, low: Bound = None, high: Bound = None) -> bool:
    """Whether a type allows a value; True for a type that is not one of plain values.

    low, high: bounds of the numbers; whole numbers are not negative unless ``low`` is.
    """
    origin, options = get_origin(hint), get_args(hint)
    if origin is Literal:
        return (type(value), value) in [(type(option), option) for option in options]
    if origin in (Union, UnionType):
        return any(suits(value, option, low, high) for option in options)
    if hint in (None, NoneType):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return type(value) is int and (low or 0) <= value <= (high or LARGEST)
    if hint is float:
        lowest, highest = -float_info.max, float_info.max
        bounds = lowest if low is None else low, highest if high is None else high
        return type(value) in (int, float) and bounds[0] <= value <= bounds[1]
    if hint in (str, Path):
        return isinstance(value, str) and value.isprintable() and value.strip() != ""
    if origin is tuple and isinstance(value, list | tuple):
        entries = _entry_types(options, len(value))
        return len(entries) == len(value) and all(map(suits, value, entries))
    if origin in (list, Sequence) and isinstance(value, list | tuple):
        return all(suits(entry, options[0]) for entry in value)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return all(suits(k, options[0]) and suits(v, options[1]) for k, v in value.items())
    if is_dataclass(hint):
        return isinstance(value, hint)  # type: ignore[arg-type]
    return origin not in (tuple, list, Sequence, dict, Mapping)


def described(hint: Any, low: Bound = None, high: Bound = None) -> str:
    """What a type allows, in words that stand behind "it must be"."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, options))}"
    if origin in (Union, UnionType):
        return ", or ".join(described(option, low, high) for option in options)
    if hint in (int, float):
        number = "a whole number" if hint is int else "a finite number"
        if low is not None:
            return f"{number} from {low:g} {f'to {high:g}' if high is not None else 'up'}"
        return f"{number}, not negative" if hint is int else number
    if hint in (str, Path):
        return "a text without control characters"
    if origin is tuple and options[1:] != (...,):
        return f"a list of {len(options)}: {'; '.join(map(described, options))}"
    if origin in (tuple, list, Sequence):
        return f"a list, each entry {described(options[0])}"
    if origin in (dict, Mapping) or is_dataclass(hint):
        return "a section of settings"
    return {bool: "true or false", NoneType: "null", None: "null"}.get(hint, "anything")


def converted(value: Any, hint: Any) -> Any:
    """The same value as its type has it: lists as tuples, whole numbers as floats."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        options = tuple(option for option in options if suits(value, option)) or (Any,)
        exact = [option for option in options if option is type(value)]
        return converted(value, (exact or options)[0])
    if hint is float and type(value) is int and suits(value, float):
        return float(value)
    if origin is tuple and isinstance(value, list | tuple):
        entries = _entry_types(options, len(value))
        return tuple(map(converted, value, entries)) if len(entries) == len(value) else value
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: converted(entry, options[1]) for key, entry in value.items()}
    return value


def check_value(name: str, value: Any, hint: Any, low: Bound = None, high: Bound = None) -> None:
    """Raise BenchmarkError, which names the setting, for a value that its type does not allow."""
    if not suits(value, hint, low, high):
        raise refusal(name, value, f"it must be {described(hint, low, high)}")


def refusal(name: str, value: Any, remedy: str) -> BenchmarkError:
    return BenchmarkError(f"{name} is {_shown(value)}; {remedy}")


def unknown(name: str, settings: Iterable[str]) -> str:
    """The message for a setting that is not there, with the nearest name."""
    matches = difflib.get_close_matches(name, settings := list(settings), 1)
    if not matches and 0 < len(settings) <= 10:
        return f"{name} is no setting: there are {', '.join(settings)}"
    return f"{name} is no setting: {f'did you mean {matches[0]}?' if matches else 'leave it out'}"


def one_line(error: object) -> str:
    return " ".join(str(error).split())


def _entry_types(options: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    return options[:1] * count if options[1:] == (...,) else options


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
