"""Writes a page for every mask method, docs/masks/NAME.md, with a picture of what it finds:

    python docs/method_pages.py

A page is made of the method's docstrings, its settings in conf/mask/ and its maps of three scenes
of the shapes world, so that it says what the code says. Without weights there is no picture.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from matplotlib import colormaps
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image

from piebench_masks.chosen import made_method
from piebench_masks.data.scene import Scene
from piebench_masks.data.shapes.render import render_edit
from piebench_masks.data.shapes.write import blended_words, evaluation_edits
from piebench_masks.diffusion.backbone import Posterior
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.masks import MapMethod
from piebench_masks.masks.binarize import rescale
from piebench_masks.masks.soft_maps import soft_maps
from piebench_masks.settings_page import CONF
from piebench_masks.weights import WeightsError, packaged

PAGES = Path(__file__).parent / "masks"
KINDS = (1, 3, 8)
"""Edit types of the scenes: another object, an object less, another background."""
TILE, GAP = 96, 4
Picture = NDArray[np.uint8]


def main() -> None:
    PAGES.mkdir(exist_ok=True)
    backbone = load_backbone(Path(packaged("shapes_turbo")), rows=8, vae_rows=8)
    scenes, annotations = drawn_scenes()
    posterior = backbone.encode_images(torch.stack([scene.image for scene in scenes]))
    for option in sorted(Path(CONF, "mask").glob("*.yaml")):
        if option.stem == "external":
            continue
        node = settings(option.stem)
        method = made_method(option.stem, node)
        picture = drawn(option.stem, method, backbone, posterior, scenes, annotations)
        (PAGES / f"{option.stem}.md").write_text(page(option, method, picture), encoding="utf-8")


def settings(name: str) -> dict[str, Any]:
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("config", [f"mask=[{name}]"])
    node: Any = OmegaConf.to_container(config.mask[name], resolve=True)
    return dict(node)


def drawn_scenes() -> tuple[list[Scene], list[NDArray[np.bool_]]]:
    """The first evaluation edit of each of ``KINDS``."""
    scenes, annotations = [], []
    for kind in KINDS:
        sample, _, edit = next(entry for entry in evaluation_edits(20) if entry[1] == kind)
        source, _, mask = render_edit(edit)
        prompts = edit.source.prompt(), edit.target.prompt()
        scenes.append(
            Scene(sample, torch.from_numpy(source), *prompts, blended_words=blended_words(edit))
        )
        annotations.append(mask)
    return scenes, annotations


def drawn(
    name: str,
    method: MapMethod,
    backbone: Any,
    posterior: Posterior,
    scenes: list[Scene],
    annotations: list[NDArray[np.bool_]],
) -> str:
    """Draw source, annotation, map and mask of each scene; what the page says of it."""
    try:
        method.load(torch.device("cpu"))
        if method.candidates is not None:
            method.candidates.load(torch.device("cpu"))
    except WeightsError:
        return "Its weights come from elsewhere, so there is no picture here."
    maps = soft_maps(backbone, posterior, scenes, {name: method}, num_repeat=1)
    rows = []
    for scene, annotation, found in zip(scenes, annotations, maps[name], strict=True):
        if not isinstance(found, torch.Tensor):
            raise found
        side = scene.image.shape[0]
        mask = method.cutter.masks(found, [method.threshold], (side, side), "exact")[0]
        heat = colormaps["viridis"](rescale(found).numpy())[..., :3]
        cells = [scene.image.numpy(), grey(annotation), np.uint8(255 * heat), grey(mask.numpy())]
        rows.append(np.hstack([tile(cell) for cell in cells]))
    sheet = Image.fromarray(np.vstack(rows)).quantize(64, dither=Image.Dither.NONE)
    sheet.save(PAGES / f"{name}.png", optimize=True)
    cost = maps.costs[name][0]
    words = f"A map costs {cost.unet_rows} U-Net rows alone"
    words += f" and {cost.forwards} passes of networks of its own" if cost.forwards else ""
    listed = "\n".join(f"- {scene.source_prompt} → {scene.target_prompt}" for scene in scenes)
    return (
        f"{words}.\n\n![{name}]({name}.png)\n\nSource, annotated mask, map, and the mask at the "
        f"default threshold, on the embedded miniature:\n\n{listed}"
    )


def grey(mask: NDArray[np.bool_]) -> Picture:
    return np.repeat(np.uint8(255) * mask[..., None].astype(np.uint8), 3, axis=2)


def tile(cell: Picture) -> Picture:
    image = Image.fromarray(cell).resize((TILE, TILE), Image.Resampling.NEAREST)
    return np.pad(np.asarray(image), ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def page(option: Path, method: MapMethod, picture: str) -> str:
    kind = type(method)
    module = inspect.cleandoc(sys.modules[kind.__module__].__doc__ or "")
    formula = inspect.cleandoc(kind.__doc__ or "").replace("``", "`")
    return (
        f"# {option.stem}\n\n{module}\n\n{formula}\n\n"
        f"It knows `{method.knows}` ([leak levels](../masks.md#leak-levels)). {picture}\n\n"
        f"## Settings\n\n`mask={option.stem}`\n\n```yaml\n{option.read_text().rstrip()}\n```\n"
    )


if __name__ == "__main__":
    main()
