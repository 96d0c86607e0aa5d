"""The methods of PnP Inversion's README by their index names, as options of the group ``methods``.

One table says what each of them is, conf/pnp_inversion.yaml. Knows no editor and no inversion.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from piebench_masks.settings_page import CONF, PNP_INVERSION

METHODS = "methods"
"""The group. Its options stand under ``editor``."""


def methods() -> dict[str, dict[str, Any]]:
    """The node of each method under ``editor``, by index name, in the table's order."""
    return {name: _part("editor", chosen) for name, chosen in _read(PNP_INVERSION).items()}


def store_methods() -> None:
    """Let Hydra compose ``methods=[ddim+p2p]`` as if the group were a folder of conf/."""
    for name, node in methods().items():
        ConfigStore.instance().store(name, {name: node}, METHODS, package="editor")


def _part(group: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The option of a group that is chosen, as {option: settings}, with these settings."""
    [(option, settings)] = chosen.items()
    node = _read(f"{group}/{option}.yaml")
    if group == "editor":
        node = node[option]
    if "inversion" in settings:
        settings = settings | {"inversion": _part("inversion", settings["inversion"])}
    return node | settings


@cache
def _read(name: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(OmegaConf.load(Path(CONF) / name))
    return plain
