"""Map methods, one file each, and the masks that thresholds make of their maps."""

from piebench_masks.masks.attn_based import ATTN_BASED
from piebench_masks.masks.baselines import BASELINES
from piebench_masks.masks.diffedit import DIFFEDIT
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.noise_based import NOISE_BASED
from piebench_masks.masks.ours import OURS

METHODS: dict[str, MapMethod] = {
    method.name: method for method in (OURS, ATTN_BASED, NOISE_BASED, DIFFEDIT, *BASELINES)
}
