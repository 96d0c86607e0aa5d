"""What the public code of D-Edit computed on random models: the cases of one folder.

The form of ../shared/goldens_items/public; its README, one folder above, says what each array is.
Whatever a case lacks is not there to be compared; nothing here knows a tolerance.
"""

import json
import shlex
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from editors_more import Arrays
from goldens import kind_of
from PIL import Image
from torch import Tensor

from piebench_masks.items.partition import Partition, read_index

FLAGS = (
    "load_trained",
    "train_full_lora",
    "load_edited_mask",
    "load_edited_processed_mask",
    "recon",
    "recon_an_item",
    "text",
    "image",
    "remove",
    "move_resize",
)
EDITS = ("recon", "text", "image", "remove", "move_resize")
TEXTS = ("name", "name_2", "dpm", "tgt_name", "tgt_prompt", "recon_prompt")
NUMBERS: dict[str, float | None] = {
    "resolution": None,
    "num_tokens": 1,
    "lora_rank": 4,
    "lora_alpha": 4,
    "embedding_learning_rate": None,
    "diffusion_model_learning_rate": None,
    "max_emb_train_steps": None,
    "max_diffusion_train_steps": None,
    "train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "num_sampling_steps": None,
    "guidance_scale": 3.0,
    "strength": 0.8,
    "edge_thickness": 20,
    "num_imgs": 1,
    "seed": None,
    "tgt_index": None,
    "src_index": None,
    "force_mask_remain": None,
}
LISTS = ("delta_x_list", "delta_y_list", "resize_list", "priority_list", "tgt_indices_list")
MORE_LISTS = ("active_mask_list", "prompt_auxin_idx_list", "prompt_auxin_list")


def _arguments(line: str) -> Namespace:
    """Of the public code's command line, whose options may be abbreviated."""
    parser = ArgumentParser(exit_on_error=False)
    for name in FLAGS:
        parser.add_argument(f"--{name}", action="store_true")
    for name in TEXTS:
        parser.add_argument(f"--{name}")
    for name, default in NUMBERS.items():
        parser.add_argument(f"--{name}", type=_number, default=default)
    for name in (*LISTS, *MORE_LISTS):
        kind = str if name == "prompt_auxin_list" else _number
        parser.add_argument(f"--{name}", type=kind, nargs="+", default=[])
    arguments, unknown = parser.parse_known_args(shlex.split(line))
    assert not unknown, unknown
    return arguments


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


@dataclass(frozen=True)
class ItemGoldens:
    """A folder of cases, and the folder that holds the models by their names."""

    folder: Path
    shared: Path

    @staticmethod
    def knows(folder: Path) -> bool:
        return kind_of(folder) == "goldens_items"

    @cached_property
    def cases(self) -> list["ItemCase"]:
        return [ItemCase(self, path.stem) for path in sorted(self.folder.glob("*.npz"))]

    def model(self, name: str) -> Path:
        """The folder of that model, wherever among the stored cases it lies."""
        return next(self.shared.glob(f"*/model/{name}"))

    def unseen(self) -> dict[str, list[str]]:
        """Arrays that no family has looked at, by case."""
        found = {case.key: sorted(case.arrays.keys() - case.arrays.seen) for case in self.cases}
        return {key: names for key, names in found.items() if names}


@dataclass(frozen=True)
class ItemCase:
    """A fit of one or two pictures with its edits; or the collection of units."""

    goldens: ItemGoldens
    key: str

    @cached_property
    def arrays(self) -> Arrays:
        return Arrays(self.goldens.folder / f"{self.key}.npz")

    @cached_property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.goldens.folder / f"{self.key}.json").read_text())
        return facts

    @cached_property
    def commands(self) -> dict[str, Namespace]:
        """The arguments of the fit, ``train``, and of each edit; of units none."""
        return {k: _arguments(c["args"]) for k, c in self.facts.get("commands", {}).items()}

    @property
    def edits(self) -> dict[str, Namespace]:
        """The arguments of each edit; ``kind`` is one of EDITS."""
        edits = {name: asked for name, asked in self.commands.items() if name != "train"}
        for asked in edits.values():
            (asked.kind,) = [kind for kind in EDITS if getattr(asked, kind)]
        return edits

    @property
    def pictures(self) -> list[str]:
        """The names of the one or two pictures, as in ``facts["inputs"]``."""
        fit = self.commands["train"]
        return [name for name in (fit.name, fit.name_2) if name]

    def image(self, picture: str) -> Tensor:
        """uint8 [H, H, 3]."""
        with Image.open(self.goldens.folder / self.facts["inputs"][picture]["image"]) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))

    def items(self, picture: str) -> Partition:
        inputs = self.facts["inputs"][picture]
        return read_index(self.goldens.folder / inputs["masks"], inputs["labels"])

    def edited(self, picture: str) -> Partition:
        """The items after editing by hand."""
        inputs = self.facts["inputs"][picture]
        path = self.goldens.folder / inputs["masks"]
        return read_index(path.with_name(f"{path.stem}_edited.png"), inputs["labels"])

    def bits(self, name: str, side: int | None = None) -> Tensor:
        """Packed masks: bool [..., side, side]; side: None for the square that the bits fill."""
        packed = self.arrays[name].numpy()
        side = side or int((8 * packed.shape[-1]) ** 0.5)
        bits = np.unpackbits(packed, axis=-1)[..., : side * side]
        return torch.from_numpy(bits).bool().unflatten(-1, (side, side))
