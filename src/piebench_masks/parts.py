"""Parts that the configuration names by their import path (``_target_``): checked, then made.

Knows no part. A part checks the meaning of its settings itself.
"""

import inspect
from collections.abc import Mapping
from functools import partial, reduce
from importlib import import_module
from typing import Any, get_type_hints

from piebench_masks.errors import BenchmarkError
from piebench_masks.values import check_value, converted, one_line, unknown

Part = dict[str, Any]
"""``_target_``, an import path; ``_partial_`` where arguments are to follow; and the settings."""
KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_part(name: str, node: Any, **arguments: Any) -> None:
    """Raise BenchmarkError unless ``node`` names something that takes its settings and these.

    Values must be of the types that the target's arguments have; so too in parts of parts. A part
    that is ``_partial_`` may leave arguments out.
    """
    try:
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise TypeError("it has no _target_")
        target = imported(str(node["_target_"]))
        signature = inspect.signature(target)
        settings = _settings(node)
        if unknown_keys := [key for key in settings if not _takes(signature, key)]:
            known_names = [f"{name}.{key}" for key in signature.parameters if key not in arguments]
            raise TypeError(unknown(f"{name}.{unknown_keys[0]}", known_names))
        bind = signature.bind_partial if node.get("_partial_") else signature.bind
        bind(**settings | arguments)
    except Exception as error:  # importing runs whatever is there
        raise BenchmarkError(
            f"{name} does not describe a part of the benchmark ({one_line(error)}): choose one of "
            f"the options in conf/{name.split('.')[0]}/, or set {name}._target_ to an import path "
            "(PYTHONPATH=. finds files of this folder) and beside it only what that takes"
        ) from error
    types = _types(target)
    for key, value in settings.items():
        if not _check_inner_parts(f"{name}.{key}", value):
            check_value(f"{name}.{key}", value, types.get(key, Any))


def made(node: Mapping[str, Any], **arguments: Any) -> Any:
    """The part of a ``_target_`` node, and the parts in its settings; errors are raised unchanged.

    Lists become tuples and whole numbers floats where the target's types say so. arguments: take
    the place of the node's own settings.
    """
    target = imported(str(node["_target_"]))
    types = _types(target)
    settings = {k: converted(_made(v), types.get(k, Any)) for k, v in _settings(node).items()}
    if node.get("_partial_"):
        return partial(target, **settings | arguments)
    return target(**settings | arguments)


def imported(path: str) -> Any:
    """What an import path names: a module's class or function, or a member of one.

    Raises ImportError or AttributeError where there is no such thing, and what importing it raises.
    """
    names = path.split(".")
    for count in range(len(names) - 1, 0, -1):
        module = ".".join(names[:count])
        try:
            return reduce(getattr, names[count:], import_module(module))
        except ModuleNotFoundError as error:
            if error.name != module or count == 1:
                raise
    raise ImportError(f"{path} is no import path, module.name")


def takes(node: Any, argument: str) -> bool:
    """Whether what the node names has an argument of that name that its settings leave out."""
    try:
        parameters = inspect.signature(imported(str(node["_target_"]))).parameters
    except Exception:  # ``check_part`` says what is wrong
        return False
    return argument in parameters and argument not in node


def _settings(node: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): node[key] for key in node if key not in ("_target_", "_partial_")}


def _takes(signature: inspect.Signature, key: str) -> bool:
    parameters = signature.parameters.values()
    return any(
        p.kind is p.VAR_KEYWORD or (p.name == key and p.kind in KEYWORDS) for p in parameters
    )


def _types(target: Any) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # imported for type checkers only; no function of Python's
        return {}


def _check_inner_parts(name: str, value: Any) -> bool:
    """Check the parts that a setting's value consists of; whether there are any."""
    if isinstance(value, Mapping) and "_target_" in value:
        check_part(name, value)
        return True
    entries: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        entries = list(value.items())
    elif isinstance(value, list | tuple):
        entries = list(enumerate(value))
    inner = [_check_inner_parts(f"{name}.{key}", entry) for key, entry in entries]
    return any(inner)


def _made(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return made(value)
        return {key: _made(entry) for key, entry in value.items()}
    return [_made(entry) for entry in value] if isinstance(value, list | tuple) else value
