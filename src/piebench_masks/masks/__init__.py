"""Map methods, one file each, and the masks that thresholds make of their maps."""

from piebench_masks.masks.attn_based import AttnBased
from piebench_masks.masks.attn_multi import AttnMulti
from piebench_masks.masks.attn_self import AttnSelf
from piebench_masks.masks.baselines import BASELINES
from piebench_masks.masks.casa import Casa
from piebench_masks.masks.chord import Chord
from piebench_masks.masks.clipseg import ClipSeg
from piebench_masks.masks.clusters import Clusters
from piebench_masks.masks.diffedit import DiffEdit
from piebench_masks.masks.grounded_sam import GroundedSam
from piebench_masks.masks.instant import Instant
from piebench_masks.masks.ledits import Ledits
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.noise_based import NoiseBased
from piebench_masks.masks.ours import Ours
from piebench_masks.masks.record import MapError, Record
from piebench_masks.masks.relevance import Relevance
from piebench_masks.masks.saliency import Saliency
from piebench_masks.masks.sam3 import Sam3
from piebench_masks.masks.words import BlendedWord, TargetWords

SEGMENTERS: dict[str, MapMethod] = {
    "clipseg": ClipSeg(),
    "sam3": Sam3(),
    "grounded_sam": GroundedSam(),
}
"""Those of METHODS that look for words, whose default weights come from the Hugging Face hub."""

METHODS: dict[str, MapMethod] = {
    "ours": Ours(),
    "attn_based": AttnBased(),
    "noise_based": NoiseBased(),
    "diffedit": DiffEdit(),
    "attn_multi": AttnMulti(),
    "attn_self": AttnSelf(),
    "casa": Casa(),
    "ledits": Ledits(),
    "target_words": TargetWords(),
    "blended_word": BlendedWord(),
    "instant": Instant(),
    "relevance": Relevance(),
    "clusters": Clusters(),
    "chord": Chord(),
    **SEGMENTERS,
    "saliency": Saliency(),
    **BASELINES,
}
"""The methods of this package under their usual names, with their default settings.

Those that paint with an editor stand apart, in `masks.regions` and `masks.regions_reference`:
editors import this module.
"""

__all__ = [
    "BASELINES",
    "METHODS",
    "SEGMENTERS",
    "AttnMulti",
    "AttnSelf",
    "Casa",
    "Chord",
    "ClipSeg",
    "Clusters",
    "GroundedSam",
    "Instant",
    "Ledits",
    "MapError",
    "MapMethod",
    "Needs",
    "Record",
    "Relevance",
    "Saliency",
    "Sam3",
]
