"""The settings of ``piebench-masks items COMMAND`` (conf/items.yaml), a class for each command.

What a fit, a sampling or a segmenter makes of its own settings is its own affair.
"""

from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.config_store import ConfigStore

from piebench_masks.errors import BenchmarkError
from piebench_masks.parts import Part, check_part
from piebench_masks.section import Section, defaults, setting
from piebench_masks.settings import ModelSettings
from piebench_masks.values import check_value

Item = int | str
MOST = 65536
"""Pixels that an item can be moved by."""
MOVE = {"item": Item, "rows": int, "columns": int, "ratio": float, "priority": int}
"""What a move says."""


@dataclass(frozen=True, kw_only=True)
class ItemSettings(Section):
    """Of all commands, beside the groups and sections above."""

    folder: str = setting(comment="of the picture and of the masks of its items", heading="What")
    device: str | None = setting(
        None, "cpu | cuda:1 ...; null: the first CUDA device, or the CPU", heading="How"
    )
    threads: int | None = setting(None, "CPU threads; null: torch's default", low=1, high=1000)
    dry_run: bool = setting(
        False, "true: print what would be computed and what is there; nothing is written"
    )
    quiet: bool = setting(False, "no progress, only results and errors on the terminal")
    log: Literal["text", "json"] = setting("text", "one JSON object a line, for clusters")
    debug: bool = setting(False, "true: tracebacks and everything that is logged")

    model: ModelSettings
    mask: dict[str, Any]
    panoptic: Part
    fit: Part
    sampling: Part

    def check_parts(self) -> None:
        for name in ("panoptic", "fit", "sampling"):
            check_part(name, getattr(self, name))
        if len(self.mask) != 1:
            raise BenchmarkError(
                f"mask is {', '.join(self.mask) or 'empty'}: choose one segmenter of texts, as in "
                "mask=sam3"
            )
        for name, node in self.mask.items():
            check_part(f"mask.{name}", node)


@dataclass(frozen=True, kw_only=True)
class SegmentSettings(ItemSettings):
    """`segment`: find items on the picture."""

    texts: tuple[str, ...] = setting(
        (),
        "what to look for, with mask=...; none: a panoptic network finds what there is",
        heading="Items",
    )
    grow: int = setting(0, "pixels by which the items that are found grow into the rest")
    resolution: int | None = setting(
        None, "side of the square that is segmented; null: the model's", low=8
    )
    overwrite: bool = setting(False, "true: other masks.png that are there are replaced")


@dataclass(frozen=True, kw_only=True)
class FitItemsSettings(ItemSettings):
    """`fit`: fit the model to the picture, or to two together; every edit does it where it must."""

    other: str | None = setting(
        None,
        "the folder of a second picture, which is fitted together with this one",
        heading="The fit",
    )


@dataclass(frozen=True, kw_only=True)
class ItemEditSettings(FitItemsSettings):
    """Of all edits. A picture that is not fitted is fitted first."""

    name: str | None = setting(
        None,
        "of the folder in FOLDER/results; null: the command's",
        heading="The edit",
        wanted="it must be a folder's name, without slashes",
        valid=lambda name: name is None or ("/" not in name and name not in (".", "..")),
    )
    templates: dict[Item, str] | None = setting(
        None, "texts of items in which * stands for an item's tokens: {circle: a photo of *}"
    )

    @property
    def arguments(self) -> dict[str, Any]:
        """What the edit is asked for, by the names of `ItemFolder.planned`."""
        return {}


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings(ItemEditSettings):
    """`reconstruct`: sample the whole picture from noise."""

    item: Item | None = setting(None, "the only one, all over the frame, by number or name")

    @property
    def arguments(self) -> dict[str, Any]:
        return super().arguments | {"item": self.item}


@dataclass(frozen=True, kw_only=True)
class MaskedEditSettings(ItemEditSettings):
    """Of text, image, move and remove."""

    edited: bool = setting(
        False, "true: the maskEdited files, or masksEdited.png, are the items of the edit"
    )
    active: tuple[Item, ...] = setting((), "further items that are painted anew")

    @property
    def arguments(self) -> dict[str, Any]:
        return super().arguments | {"edited": self.edited, "active": self.active}


@dataclass(frozen=True, kw_only=True)
class TextSettings(MaskedEditSettings):
    """`text`: an item becomes what words say."""

    item: Item = setting(comment="by number or name")
    words: str = setting(comment="what it shall be")

    @property
    def arguments(self) -> dict[str, Any]:
        return super().arguments | {"target": self.item, "words": self.words}


@dataclass(frozen=True, kw_only=True)
class ImageSettings(MaskedEditSettings):
    """`image`: an item becomes an item of another picture."""

    other: str = setting(comment="the folder of that picture, fitted together with this one")
    item: Item = setting(comment="by number or name")
    source: Item = setting(comment="the other picture's item, by number or name")

    @property
    def arguments(self) -> dict[str, Any]:
        return super().arguments | {"target": self.item, "picture": 1, "item": self.source}


@dataclass(frozen=True, kw_only=True)
class VacatingSettings(MaskedEditSettings):
    """Of move and remove."""

    heir: Item | None = setting(
        None, "the item that takes what is left; null: each pixel goes to the nearest item"
    )
    processed: str | None = setting(
        None, "a folder with the masks after the edit, drawn by hand: instead of computing them"
    )

    @property
    def arguments(self) -> dict[str, Any]:
        return super().arguments | {"heir": self.heir, "processed": self.processed}


@dataclass(frozen=True, kw_only=True)
class RemoveSettings(VacatingSettings):
    """`remove`: an item goes, and its neighbours take its place."""

    item: Item = setting(comment="by number or name")

    @property
    def arguments(self) -> dict[str, Any]:
        return super().arguments | {"target": self.item}


@dataclass(frozen=True, kw_only=True)
class MoveSettings(VacatingSettings):
    """`move`: an item goes elsewhere, or changes its size."""

    item: Item = setting(comment="by number or name")
    rows: int = setting(0, "down, pixels; negative: up", low=-MOST, high=MOST)
    columns: int = setting(0, "right, pixels; negative: left", low=-MOST, high=MOST)
    ratio: float = setting(1.0, "of its new size to the old", low=1e-3, high=1e3)
    priority: int = setting(
        1, "the highest has a pixel that several cover; of items that stay it is 0", low=-MOST
    )
    also: tuple[dict[str, Any], ...] = setting(
        (), "more moves: [{item: star, rows: 3, columns: 0, ratio: 1, priority: 1}]"
    )

    def check_parts(self) -> None:
        super().check_parts()
        for entry in self.also:
            if "item" not in entry or not MOVE.keys() >= entry.keys():
                raise BenchmarkError(
                    f"also has {entry}: give each further move an item, and of "
                    f"{', '.join(MOVE)} what it needs"
                )
            for name, value in entry.items():
                check_value(f"also.{name}", value, MOVE[name], -MOST)

    @property
    def arguments(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in MOVE}
        return super().arguments | {"moves": [own, *self.also]}


ITEM_COMMANDS: dict[str, type[ItemSettings]] = {
    "segment": SegmentSettings,
    "fit": FitItemsSettings,
    "reconstruct": ReconstructSettings,
    "text": TextSettings,
    "image": ImageSettings,
    "move": MoveSettings,
    "remove": RemoveSettings,
}
ITEM_KINDS = (
    ItemSettings,
    *(SegmentSettings, FitItemsSettings, ItemEditSettings, ReconstructSettings),
    *(MaskedEditSettings, TextSettings, ImageSettings, VacatingSettings, MoveSettings),
    RemoveSettings,
)
"""All classes, each behind the one that it continues."""
STORE = ConfigStore.instance()
for name, kind in ITEM_COMMANDS.items():
    STORE.store(name, defaults(kind), group="command", package="_global_")
