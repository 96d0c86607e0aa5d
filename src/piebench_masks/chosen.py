"""What a configuration chooses, made and checked: the diffusion model, mask methods, editors and
metrics, and the device.

Knows no run.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from piebench_masks.diffusion.backbone import Backbone, Capability
from piebench_masks.diffusion.loading import BackboneClass, backbone_class
from piebench_masks.diffusion.source import resolve_model
from piebench_masks.editing.editor import Editor
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import MapMethod
from piebench_masks.metrics import Metric, device_argument
from piebench_masks.parts import Part, imported, made
from piebench_masks.settings import EXTERNAL, EditImageSettings, ModelSettings, Settings
from piebench_masks.values import one_line


@dataclass(frozen=True)
class ChosenModel:
    """The diffusion model of these settings. Raises BenchmarkError where it cannot be had."""

    settings: ModelSettings

    @cached_property
    def source(self) -> tuple[Path, str]:
        """Its folder and identity; a hub model is downloaded if need be."""
        model = self.settings
        return resolve_model(
            model.id, revision=model.revision, variant=model.variant, cache_dir=model.cache_dir
        )

    @cached_property
    def kind(self) -> BackboneClass:
        """What loads it."""
        if self.settings.backbone is None:
            return backbone_class(self.source[0])
        try:
            kind: BackboneClass = imported(self.settings.backbone)
        except Exception as error:  # importing runs whatever is there
            raise BenchmarkError(
                f"model.backbone={self.settings.backbone} cannot be imported ({error}): set it to "
                "the import path of a class with the members of piebench_masks.diffusion.loading."
                "BackboneClass"
            ) from error
        return kind

    @cached_property
    def description(self) -> tuple[int, int, frozenset[Capability]]:
        """Sides of its images and latents, and what it can do, without its weights."""
        return self.kind.describe(self.source[0], few_steps=self.settings.few_steps)

    def load(self, device: torch.device) -> Backbone:
        """Load its weights."""
        model = self.settings
        return self.kind.from_folder(
            self.source[0],
            variant=model.variant,
            dtype=getattr(torch, model.dtype),
            vae_dtype=getattr(torch, model.vae_dtype),
            device=device,
            rows=model.rows,
            vae_rows=model.vae_rows,
            map_size=model.map_size,
            compiled=model.compile,
            few_steps=model.few_steps,
        )


def device_of(node: Part, device: str) -> dict[str, str]:
    """The argument ``device`` of a part that takes one and was given none."""
    return device_argument(imported(node["_target_"]), node, device)


def made_method(name: str, node: Part) -> MapMethod:
    """The mask method of a node under ``mask``; BenchmarkError where it describes none."""
    method = made(node)
    if not isinstance(method, MapMethod):
        raise BenchmarkError(
            f"mask.{name}._target_ is {node['_target_']}, which makes a {type(method).__name__} "
            "and no MapMethod: set it to the import path of one"
        )
    return method


def made_metric(node: Part, device: str) -> Metric:
    """The metric that a node describes, on that device if it takes one."""
    metric: Metric = made(node, **device_of(node, device))
    return metric


def made_editors(cfg: Settings | EditImageSettings, device: str) -> dict[str, Editor]:
    """The editors of a configuration by name, without ``external``, which paints nothing; on that
    device those that take one.

    Raises BenchmarkError where one cannot be made or lacks a member that an editor has.
    """
    editors: dict[str, Editor] = {}
    for name, node in cfg.editor.items():
        if name != EXTERNAL:
            try:
                editors[name] = made(node, **device_of(node, device))
            except BenchmarkError:
                raise
            except Exception as error:  # the editor's own; it may come from anywhere
                raise BenchmarkError(f"editor.{name} cannot be made: {one_line(error)}") from error
    for name, editor in editors.items():
        missing = [m for m in ("needs", "reads", "invert", "edit") if not hasattr(editor, m)]
        if missing:
            raise BenchmarkError(
                f"editor.{name} has no {', '.join(missing)}: let its class inherit from "
                "piebench_masks.editing.editor.Editor, or add what is missing"
            )
    return editors


def only_editor(cfg: EditImageSettings) -> Editor:
    """The editor of a configuration that has a single one; else BenchmarkError."""
    editors = made_editors(cfg, cfg.device or default_device())
    if len(editors) != 1:
        raise BenchmarkError(
            f"editor names {len(editors)} editors ({', '.join(editors)}): choose one, as in "
            "editor=turbo_edit"
        )
    return next(iter(editors.values()))


def usable_device(name: str) -> torch.device:
    """The torch device of that name; BenchmarkError if there is none here."""
    try:
        device = torch.device(name)
        if device.type == "cuda":
            torch.cuda.get_device_properties(device)
        else:
            torch.zeros(1, device=device).cpu()
    except Exception as error:  # each kind of device that torch may lack raises its own type
        count = torch.cuda.device_count() or "no"
        raise BenchmarkError(
            f"device {name} cannot be used ({str(error).splitlines()[0]}); there are {count} CUDA "
            "devices here; device=cpu needs none"
        ) from error
    return device


def default_device() -> str:
    return "cuda:0" if torch.cuda.is_available() else "cpu"
