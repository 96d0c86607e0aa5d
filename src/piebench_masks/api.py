"""The benchmark's methods for one picture at a time, from Python: load once, then ask often.

pipeline = Pipeline.load()    # the embedded miniature; or a folder, or a hub name
edited = pipeline.edit("scene.png", "a red circle on grass", "a blue circle on grass")
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from piebench_masks.data.images import load_image, to_rgb
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.diffusion.source import packaged, resolve_model
from piebench_masks.editing.editor import Editor, Sources
from piebench_masks.editing.turbo_edit import TurboEdit
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import METHODS, MapMethod
from piebench_masks.masks.binarize import rescale, upsample
from piebench_masks.masks.rows import SampleMode
from piebench_masks.masks.soft_maps import soft_maps

Picture = Image.Image | Path | str
"""A PIL image of any mode, or an image file."""


class Pipeline:
    """A loaded model with the map methods and editors on it.

    compat: ``exact``, or ``reference`` for the reference implementation's Python API with all its
    quirks (METHODS.md, section 2).
    """

    def __init__(self, backbone: Backbone, compat: Compat = "exact") -> None:
        self.backbone, self.compat = backbone, compat

    @classmethod
    def load(
        cls,
        model: str | Path = "shapes_turbo",
        *,
        revision: str | None = None,
        variant: str | None = None,
        cache_dir: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        compat: Compat = "exact",
    ) -> "Pipeline":
        """Load ``shapes_turbo`` (embedded), a diffusers folder, or a model of the hub.

        Raises BenchmarkError where the model is not there or does not load.
        """
        name = packaged(model) if model == "shapes_turbo" else str(model)
        folder, _ = resolve_model(name, revision=revision, variant=variant, cache_dir=cache_dir)
        backbone = Backbone.from_folder(folder, variant=variant, dtype=dtype, device=device)
        return cls(backbone, compat)

    def soft_map(
        self,
        image: Picture,
        source_prompt: str,
        target_prompt: str,
        method: str | MapMethod = "ours",
        *,
        num_repeat: int = 1,
        strength: float = 0.5,
        sample_mode: SampleMode = "argmax",
        seed: int = 8128,
    ) -> NDArray[np.float32]:
        """Where the edit belongs, as float32 [H,W] of the image, min-max rescaled to [0,1].

        method: a name of ``piebench_masks.masks.METHODS`` or a MapMethod of one's own.
        Raises BenchmarkError where the method has no map for these prompts.
        """
        picture, posterior = self._encode(image)
        raw = self._raw_map(
            posterior,
            source_prompt,
            target_prompt,
            method,
            num_repeat=num_repeat,
            strength=strength,
            sample_mode=sample_mode,
            seed=seed,
        )
        return upsample(rescale(raw), (picture.height, picture.width), "exact").numpy()

    def edit(
        self,
        image: Picture,
        source_prompt: str,
        target_prompt: str,
        method: str | MapMethod | None = "ours",
        threshold: float = 0.5,
        num_repeat: int = 1,
        strength: float = 0.5,
        sample_mode: SampleMode = "argmax",
        seed: int = 8128,
        *,
        editor: Editor | None = None,
    ) -> Image.Image:
        """The image edited under the method's mask (None: without a mask).

        editor: any of ``piebench_masks.editing``, with settings of its own; None is TurboEdit with
        ``seed``, which is that of the map's noise. The result has the model's image size.
        """
        picture, posterior = self._encode(image)
        size = self.backbone.latent_size
        mask = torch.ones(1, size, size, dtype=torch.bool)
        if method is not None:
            raw = self._raw_map(
                posterior,
                source_prompt,
                target_prompt,
                method,
                num_repeat=num_repeat,
                strength=strength,
                sample_mode=sample_mode,
                seed=seed,
            )
            # The reference's script cuts at the image's size, its Python API at the latents'.
            side = size if self.compat == "reference" else self.backbone.image_size
            mask = _method(method).binarizer.latent_masks(
                raw, [threshold], (side, side), self.compat, size
            )
        sources = Sources(
            self._pixels(picture), posterior, [source_prompt], [target_prompt], [""], [""]
        )
        owner = torch.zeros(1, dtype=torch.long, device=self.backbone.device)
        editor = editor or TurboEdit(seed=seed)
        inverted = editor.invert(self.backbone, sources)
        mask = mask.to(self.backbone.device)
        edited = editor.edit(self.backbone, sources, inverted, mask, owner)
        decoder = edited.decoder or self.backbone
        return Image.fromarray(decoder.decode(edited.latents)[0].numpy())

    def _encode(self, image: Picture) -> tuple[Image.Image, Posterior]:
        picture = (
            image if isinstance(image, Image.Image) else Image.fromarray(load_image(Path(image)))
        )
        return picture, self.backbone.encode_images(self._pixels(picture))

    def _pixels(self, picture: Image.Image) -> Tensor:
        """The picture at the model's size: uint8 [1, H, W, 3]."""
        side = self.backbone.image_size
        resized = to_rgb(picture).resize((side, side), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(resized))[None]

    def _raw_map(
        self,
        posterior: Posterior,
        source_prompt: str,
        target_prompt: str,
        method: str | MapMethod,
        **settings: Any,
    ) -> Tensor:
        chosen = _method(method)
        prompts = [source_prompt], [target_prompt]
        maps = soft_maps(
            self.backbone, posterior, *prompts, [chosen], compat=self.compat, **settings
        )
        (result,) = maps[chosen.name]
        if not isinstance(result, Tensor):
            raise result
        return result


def _method(method: str | MapMethod) -> MapMethod:
    if isinstance(method, MapMethod):
        return method
    if method not in METHODS:
        raise BenchmarkError(f"there is no map method {method!r}; there are {', '.join(METHODS)}")
    return METHODS[method]
