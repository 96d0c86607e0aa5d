"""Map methods, one file each, and the masks that thresholds make of their maps."""

from piebench_masks.masks.attn_based import AttnBased
from piebench_masks.masks.baselines import BASELINES
from piebench_masks.masks.diffedit import DiffEdit
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.noise_based import NoiseBased
from piebench_masks.masks.ours import Ours
from piebench_masks.masks.record import MapError, Record

METHODS: dict[str, MapMethod] = {
    "ours": Ours(),
    "attn_based": AttnBased(),
    "noise_based": NoiseBased(),
    "diffedit": DiffEdit(),
    **BASELINES,
}
"""The methods of this package under their usual names, with their default settings."""

__all__ = ["BASELINES", "METHODS", "MapError", "MapMethod", "Needs", "Record"]
