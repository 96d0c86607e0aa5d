"""The benchmark's methods for one picture at a time, from Python: encode once, then ask often.

pipeline = Pipeline.load()    # the embedded miniature; or a folder, or a hub name
scene = pipeline.scene("scene.png", "a red circle on grass", "a blue circle on grass")
edited = scene.edit("ours")   # or under a mask of your own
"""

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from piebench_masks.chosen import made_method
from piebench_masks.data.images import load_image, to_rgb
from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.diffusion.source import resolve_model
from piebench_masks.editing.editor import Editor, Fit, Fitting, Sources, check_needs, paint
from piebench_masks.editing.turbo_edit import TurboEdit
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import METHODS, MapMethod
from piebench_masks.masks.binarize import nearest_exact, rescale, upsample
from piebench_masks.masks.soft_maps import SampleMode, needs_model, soft_maps
from piebench_masks.settings import EXTERNAL
from piebench_masks.settings_page import CONF, options
from piebench_masks.weights import packaged

Picture = Image.Image | Path | str
"""A PIL image of any mode, or an image file."""
Mask = NDArray[np.bool_] | Tensor
"""bool [h, w] of the latents' size or any other, True in the part to edit."""


class Pipeline:
    """A loaded model with the mask methods and editors on it.

    compat: ``exact``, or ``reference`` for the reference implementation's Python API with all its
    quirks (methods.md, section 2).
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
        vae_dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        rows: int = 8,
        vae_rows: int = 16,
        compat: Compat = "exact",
    ) -> "Pipeline":
        """Load ``shapes_turbo`` (embedded), a diffusers folder, or a model of the hub.

        rows, vae_rows: of one call of the U-Net and of the VAE, as in conf/model/: results are
        equal to the bit where these are. Raises BenchmarkError where the model is not there or
        does not load.
        """
        name = packaged(model) if model == "shapes_turbo" else str(model)
        folder, _ = resolve_model(name, revision=revision, variant=variant, cache_dir=cache_dir)
        backbone = load_backbone(
            folder,
            variant=variant,
            dtype=dtype,
            vae_dtype=vae_dtype,
            device=device,
            rows=rows,
            vae_rows=vae_rows,
        )
        return cls(backbone, compat)

    def scene(
        self,
        image: Picture,
        source_prompt: str,
        target_prompt: str,
        *,
        instruction: str = "",
        blended_words: str = "",
        num_repeat: int = 1,
        strength: float = 0.5,
        sample_mode: SampleMode = "argmax",
        seed: int = 8128,
    ) -> "EncodedScene":
        """A picture and the edit that is asked for; it is encoded once, at the first question.

        blended_words: "cat dog", what is exchanged for what; instruction: for editors by
        instruction. num_repeat, strength, sample_mode, seed: of the noise that its maps are made
        from, as in conf/config.yaml; the edits' noise has the same seed.
        """
        picture = (
            image if isinstance(image, Image.Image) else Image.fromarray(load_image(Path(image)))
        )
        side = self.backbone.image_size
        resized = to_rgb(picture).resize((side, side), Image.Resampling.BICUBIC)
        scene = Scene(
            id="",
            image=torch.from_numpy(np.array(resized)),
            source_prompt=source_prompt,
            target_prompt=target_prompt,
            instruction=instruction,
            blended_words=blended_words,
        )
        noise = {"num_repeat": num_repeat, "strength": strength, "sample_mode": sample_mode}
        return EncodedScene(self, scene, (picture.height, picture.width), noise | {"seed": seed})


class EncodedScene:
    """One picture in a pipeline. size: height and width of the picture as it was given; noise: what
    its maps are made from, as ``soft_maps`` takes it.
    """

    def __init__(
        self, pipeline: Pipeline, scene: Scene, size: tuple[int, int], noise: dict[str, Any]
    ) -> None:
        self.pipeline, self.scene, self.size, self.noise = pipeline, scene, size, noise
        self._fits: dict[Fitting, Fit] = {}

    @cached_property
    def posterior(self) -> Posterior:
        return self.pipeline.backbone.encode_images(self.scene.image[None])

    def soft_map(self, method: str | MapMethod = "ours") -> NDArray[np.float32]:
        """Where the edit belongs, as float32 [H,W] of the picture, min-max rescaled to [0,1].

        method: a name of ``piebench_masks.masks.METHODS`` or of an option in conf/mask/, such as
        regions_shapes; or a MapMethod of one's own. Raises BenchmarkError where the method has no
        map for these prompts.
        """
        return upsample(rescale(self.raw_map(method)), self.size, "exact").numpy()

    def raw_map(self, method: str | MapMethod = "ours") -> Tensor:
        """The same map on its native grid and in its own units: float32 [g,g]."""
        map_method, backbone = named_method(method), self.pipeline.backbone
        is_encoded = needs_model({"": map_method}) or map_method.candidates is not None
        (result,) = soft_maps(
            backbone,
            self.posterior if is_encoded else None,
            [self.scene],
            {"": map_method},
            compat=self.pipeline.compat,
            **self.noise,
        )[""]
        if not isinstance(result, Tensor):
            raise result
        return result

    def mask(
        self, method: str | MapMethod = "ours", threshold: float | None = None
    ) -> NDArray[np.bool_]:
        """The mask of a method that ``edit`` paints under: bool [h,w] of the latents.

        threshold: None is the method's own.
        """
        map_method, backbone = named_method(method), self.pipeline.backbone
        compat, size = self.pipeline.compat, backbone.latent_size
        # The reference's script cuts at the image's size, its Python API at the latents'.
        side = size if compat == "reference" else backbone.image_size
        thresholds = [map_method.threshold if threshold is None else threshold]
        raw = self.raw_map(map_method)
        masks = map_method.cutter.latent_masks(raw, thresholds, (side, side), compat, size)
        return masks[0].numpy()

    def edit(
        self,
        mask: Mask | str | MapMethod | None = "ours",
        threshold: float | None = None,
        *,
        editor: Editor | None = None,
    ) -> Image.Image:
        """The picture edited under a mask, at the model's size.

        mask: an array, a method (cut at ``threshold``; None is its own), or None for no mask;
        editor: any of ``piebench_masks.editing`` with settings of its own; None is TurboEdit. What
        one fits to the picture is fitted at its first edit, and kept as long as this scene.
        Raises BenchmarkError where the method has no map, or the model lacks what the editor needs.
        """
        backbone, editor = self.pipeline.backbone, editor or TurboEdit(seed=self.noise["seed"])
        check_needs(editor, backbone.provides)
        if isinstance(mask, str | MapMethod):
            mask = self.mask(mask, threshold)
        posterior = None if editor.needs is None else self.posterior
        sources = Sources([self.scene], posterior, self._fit(editor))
        masks = _at_latents(mask, backbone.latent_size)
        edited, _ = paint(backbone, editor, sources, masks, torch.zeros(1, dtype=torch.long))
        if not edited.finite.all():
            raise BenchmarkError(
                "the edit's latents are not finite: the precision overflowed (load the model with "
                "a dtype of more range)"
            )
        return Image.fromarray(edited.images[0].numpy())

    def _fit(self, editor: Editor) -> Callable[[int], Fit] | None:
        fitting: Fitting | None = getattr(editor, "fitting", None)
        if fitting is None:
            return None
        if fitting not in self._fits:
            self._fits[fitting] = fitting(self.pipeline.backbone, self.scene)
        return lambda row: self._fits[fitting]


def named_method(method: str | MapMethod) -> MapMethod:
    if isinstance(method, MapMethod):
        return method
    if method in METHODS:
        return METHODS[method]
    names = [path.stem for path in options("mask")]
    if method not in names or method == EXTERNAL:
        there = dict.fromkeys([*METHODS, *names])
        raise BenchmarkError(
            f"there is no mask method {method!r}; there are "
            f"{', '.join(name for name in there if name != EXTERNAL)}"
        )
    return configured_method(method)


@cache
def configured_method(name: str) -> MapMethod:
    """An option of conf/mask/ with its settings there; it keeps the networks that it loads."""
    with initialize_config_dir(CONF, version_base="1.3"):
        masks: Any = OmegaConf.to_container(
            compose("config", [f"mask=[{name}]"]).mask, resolve=True
        )
    return made_method(name, masks[name])


def _at_latents(mask: Mask | None, size: int) -> Tensor:
    """bool [1, size, size]; None is everywhere."""
    if mask is None:
        return torch.ones(1, size, size, dtype=torch.bool)
    array = torch.as_tensor(mask)
    if array.dtype != torch.bool or array.ndim != 2:
        raise BenchmarkError(
            f"the mask is {array.dtype} {tuple(array.shape)}: give bool [height, width], such as "
            "soft_map > 0.5"
        )
    return array[None] if array.shape == (size, size) else nearest_exact(array[None], size)
