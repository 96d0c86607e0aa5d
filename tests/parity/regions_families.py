"""The families of Learnable Regions: from the picture to the box that wins, and the units."""

import math
import re
from collections.abc import Iterator

import numpy as np
import torch
from families import Check, furthest
from regions import (
    FEATURES,
    GRID,
    SMALL,
    RegionCase,
    digest,
    picture,
    published_network,
)
from safetensors.torch import load_file
from torch import Generator, Tensor
from torch.nn import functional as F

from piebench_masks.masks.regions_reference import enlarged
from piebench_masks.regions.boxes import anchor_points, masks, pixel_boxes
from piebench_masks.regions.choice import final_choice, final_scores
from piebench_masks.regions.losses import (
    TEMPLATE,
    direction_views,
    encode_texts,
    text_views,
)
from piebench_masks.regions.losses import losses as region_losses
from piebench_masks.regions.network import Choice, RegionNetwork
from piebench_masks.regions.saliency import IMAGE_SIZE, interpolated_positions, saliency
from piebench_masks.regions.views import resized

VIEWS, EMBEDDINGS, LAYOUTS, LOSSES = (1e-3, 1e-1), (1e-4, 5e-2), (1e-5, 1e-3), (1e-5, 2e-4)
"""Of pictures that are to the last pixel as they were; of our own, which differ by a level."""
LATENT, SHARE, MEANS = 1e-4, 1e-2, 1.0
"""Of latents; the share of values that may be off by a level; levels of 16x16 means."""
VIEWED = ("views_pool28", "_emb")
"""Names of arrays that have an axis of views after that of pictures."""
RATE, BETAS, DECAY = 5e-3, (0.9, 0.96), 0.045
"""Of the published optimiser, Adam."""
LOSS, OWN_LOSS = LOSSES


def picture_and_saliency(case: RegionCase) -> Iterator[Check]:
    """The picture, DINO's positions, features and attention, and the saliency."""
    if not case.is_pair:
        return
    found = digest(case.image)
    yield from case.fact("picture", "sha1", found, case.facts.get("image_sha1_uint8_hwc"))
    planes = case.image.movedim(-1, 0) / 255
    yield from case.check("picture", "image_pool8", F.avg_pool2d(planes, 8), 1e-6)
    large = enlarged(case.image, 512).movedim(-1, 0) / 255
    yield from case.check("picture", "init512_pool16", F.avg_pool2d(large, 16), 1e-6)
    folder = case.goldens.model("dino_hf")
    stored = load_file(folder / "dino_position_embeddings_256.safetensors")
    original = load_file(folder / "model.safetensors")["embeddings.position_embeddings"]
    positions = interpolated_positions(original, GRID, "reference")
    error = furthest(positions, stored["position_embeddings_256"])
    yield case.error("DINO", "positions", error, 1e-6)
    yield from case.check("DINO", "dino/feat", case.features.tokens, FEATURES)
    yield from case.check("DINO", "dino/attn_cls", case.features.attention, SMALL)
    yield from case.check("saliency", "dino/saliency", case.saliency, SMALL)
    name = "dino/saliency_sorted_top64"
    if name in case.arrays:
        largest = case.saliency.flatten().sort(descending=True).values[: len(case.arrays[name])]
        yield from case.check("saliency", name, largest, SMALL)


def boxes(case: RegionCase) -> Iterator[Check]:
    """Anchors, regions, the network's log-probabilities, sizes and boxes of every pass."""
    if not case.is_pair:
        return
    if (network := case.network) is not None:
        with torch.no_grad():
            feature_map = network.feature_map(case.features.tokens)
            regions = network.region_features(feature_map, case.points)
            log_probabilities = network(regions)
        yield from case.check("regions", "conv_feat", feature_map, SMALL)
        yield from _regions(case, "", network, regions, case.points)
    for k, facts in case.calls.items():
        yield from case.check("points", f"call{k}/points", case.points, 0)
        if network is not None:
            yield from case.check("sizes", f"call{k}/log_probs", log_probabilities, SMALL)
        gumbel, choice = case.gumbel(k), case.choice(k)
        if gumbel is None or choice is None:
            continue
        yield from case.check("sizes", f"call{k}/gumbel", gumbel, SMALL)
        best = (log_probabilities + gumbel).topk(2, dim=-1).values
        if (stored := facts.get("gumbel_margin_min")) is not None:
            error = furthest((best[:, 0] - best[:, 1]).min(), stored)
            yield case.error("sizes", f"call{k} margin", error, SMALL)
        yield from _boxes(case, f"call{k}/", choice)


def _regions(
    case: RegionCase, prefix: str, network: RegionNetwork, regions: Tensor, points: Tensor
) -> Iterator[Check]:
    sizes, count = regions.shape[:2]
    index = torch.arange(count).expand(sizes, count)[..., None]
    found = torch.cat([index, network.regions(points, GRID)], dim=-1)
    yield from case.check("regions", f"{prefix}roi_region", found, 0)
    yield from case.check("regions", f"{prefix}roi_feats_by_size", regions, SMALL)
    stacked = regions.reshape(count, -1, *regions.shape[-2:])
    yield from case.check("regions", f"{prefix}roi_feats", stacked, SMALL)


def _boxes(case: RegionCase, prefix: str, choice: Choice) -> Iterator[Check]:
    yield from case.check("sizes", f"{prefix}onehot_raw", choice.onehot, 0)
    yield from case.check("boxes", f"{prefix}bbox", choice.boxes, 0)
    mapped = choice.boxes * ((IMAGE_SIZE - 1) / (GRID - 1))
    yield from case.check("boxes", f"{prefix}bbox_mapped", mapped, 1e-4)
    found = pixel_boxes(choice.boxes, IMAGE_SIZE, GRID)
    yield from case.check("boxes", f"{prefix}bbox_ceil", found, 0)
    yield from case.bits("boxes", f"{prefix}mask256", masks(found, IMAGE_SIZE))


def painted(case: RegionCase) -> Iterator[Check]:
    """Noise, masks and latents of the masked picture; every step; the pictures."""
    if not case.is_pair or "inpainting_steps" not in case.facts:
        return
    for k, facts in case.calls.items():
        if (found := case.painting(k)) is None:
            continue
        call = f"call{k}/"
        yield from case.fact("noise", f"{call}sha1", digest(found.noise), facts.get("noise_sha1"))
        yield from case.fact("noise", f"{call}time steps", found.timesteps, facts.get("timesteps"))
        noise, latents = found.noise, found.masked_latents
        yield from case.check("noise", f"{call}noise_pool4", F.avg_pool2d(noise, 4), SMALL)
        yield from case.check("noise", f"{call}noise_row0", noise[0], 0)
        yield from case.bits("latent masks", f"{call}mask64", found.mask)
        for name, value in (("pool4", F.avg_pool2d(latents, 4)), ("row0", latents[0])):
            yield from case.check("masked latents", f"{call}masked_latents_{name}", value, LATENT)
        steps = F.avg_pool2d(found.steps.flatten(0, 1), 4).unflatten(0, found.steps.shape[:2])
        yield from case.check("steps", f"{call}step_pool4", steps, LATENT)
        planes = found.images.movedim(-1, 1)
        means = F.avg_pool2d(planes.float(), 16).movedim(1, -1)
        yield from case.check("pictures (16x16 means)", f"{call}edit_pool16", means, MEANS)
        yield from _pixels(case, k, found.images)


def _pixels(case: RegionCase, k: int, images: Tensor) -> Iterator[Check]:
    """Against stored pictures: the share of values that differ, where none is off by two levels."""
    folder = case.goldens.folder / "edited"
    names = {i: f"{case.key}__call{k}_anchor{i}.png" for i in range(len(images))}
    if k == case.last and (chosen := stored_winner(case)) is not None:
        names |= {chosen: f"{case.key}__chosen.png"}
    for i, name in names.items():
        if (folder / name).exists():
            difference = (images[i].int() - picture(folder / name).int()).abs()
            share = (difference > 0).double().mean().item()
            error = share if difference.max() <= 1 else float("inf")
            yield case.error("pictures (pixels)", name, error, SHARE)


def stored_winner(case: RegionCase) -> int | None:
    candidates, chosen = case.facts.get("candidates"), case.facts.get("chosen")
    return candidates.index(chosen) if candidates and chosen in candidates else None


def losses(case: RegionCase) -> Iterator[Check]:
    """Views, embeddings and losses of the passes that the public code calls training."""
    if not case.is_pair or "inpainting_steps" not in case.facts:
        return
    encoders, source = case.goldens.encoders, case.image.movedim(-1, 0)
    texts = encode_texts(encoders, case.facts["args"]["image_caption"], case.prompt)
    for k, facts in case.calls.items():
        call = f"call{k}/"
        yield from case.check("texts", f"{call}text_emb", texts.target[None], SMALL)
        yield from case.check("texts", f"{call}src_emb", texts.source[None], SMALL)
        name = f"{call}rng_calculate_clip_loss"
        if name not in case.arrays or (pictures := case.pictures(k)) is None:
            continue
        images, same = pictures
        yield from _views(case, k, source, images, same)
        generator = generator_at(case.arrays[name])
        before = (source / 255).expand(len(images), -1, -1, -1)
        found = region_losses(encoders, before, images.float(), texts, generator, antialias=False)
        limit = LOSS if all(same) else OWN_LOSS
        yield from _rows(case, "losses", f"{call}structure_mse", found.structure, same, LOSSES)
        weights = [case.facts["args"][f"loss_{name}"] for name in ("alpha", "beta", "gamma")]
        for key, value in {
            "calculate_clip_loss": found.text,
            "calculate_clip_dir_loss": found.direction,
            "calculate_structure_loss": found.structure,
            "loss": found.weighted(weights),
        }.items():
            if (stored := facts.get(key)) is not None:
                error = furthest(value.mean(), stored)
                yield case.error(_family("losses", all(same)), f"{call}{key}", error, limit)


def _views(
    case: RegionCase, k: int, source: Tensor, images: Tensor, same: list[bool]
) -> Iterator[Check]:
    """Views, their embeddings and the similarity of tokens; generators as they were in between."""
    encoders, call = case.goldens.encoders, f"call{k}/"
    before, after = (source / 255).expand(len(images), -1, -1, -1), images.float()
    generator = generator_at(case.arrays[f"{call}rng_calculate_clip_loss"])
    text = text_views(after, encoders.side, generator, antialias=False)
    yield from case.check(
        "generators", f"{call}rng_calculate_clip_dir_loss", generator.get_state(), 0
    )
    pairs = direction_views(before, after, encoders.side, generator, antialias=False)
    yield from case.check(
        "generators", f"{call}rng_calculate_structure_loss", generator.get_state(), 0
    )
    twice = [row for one in same for row in (True, one)]
    for name, found, rows in (
        ("calculate_clip_loss", text, same),
        ("calculate_clip_dir_loss", pairs.flatten(0, 1), twice),
    ):
        means = F.avg_pool2d(found.flatten(0, 1), 28).unflatten(0, found.shape[:2])
        yield from _rows(case, "views", f"{call}{name}_views_pool28", means, rows, VIEWS)
    embeddings = encoders.images(pairs)
    for name, found, rows in (
        ("clip_loss_emb", encoders.images(text), same),
        ("dir_in_emb", embeddings[:, 0], [True] * len(same)),
        ("dir_out_emb", embeddings[:, 1], same),
    ):
        yield from _rows(case, "embeddings", f"{call}{name}", found, rows, EMBEDDINGS)
    for name, plane, rows in (
        ("selfsim_in_s8", before, [True] * len(same)),
        ("selfsim_out_s8", after, same),
    ):
        found = encoders.self_similarity(resized(plane, encoders.side, antialias=False))
        yield from _rows(
            case, "self-similarity", f"{call}{name}", found[:, ::8, ::8], rows, LAYOUTS
        )


def _rows(
    case: RegionCase,
    family: str,
    name: str,
    found: Tensor,
    same: list[bool],
    limits: tuple[float, float],
) -> Iterator[Check]:
    """The largest error of pictures that are to the last pixel as they were, and of those that are
    not. Of the latter's views, one in 50 and at least one does not count: a level may turn the hue
    of a whole view, whose embedding is .1 off then.
    """
    if name not in case.arrays:
        return
    stored = case.arrays[name]
    if len(stored) != len(found):
        yield case.error(family, name, float("inf"), 0)
        return
    as_they_were = torch.tensor(same)
    difference = (found - stored).abs()
    if any(same):
        yield case.error(family, name, difference[as_they_were].max().item(), limits[0])
    if not all(same):
        own = difference[~as_they_were]
        if name.endswith(VIEWED):
            views = own.flatten(0, 1).flatten(1).amax(dim=1).sort().values
            own = views[: -max(1, len(views) // 50)]
        yield case.error(_family(family, False), name, own.max().item(), limits[1])


def _family(family: str, same: bool) -> str:
    return family if same else f"{family} (own pictures)"


def winner(case: RegionCase) -> Iterator[Check]:
    """The final choice among the last pass's pictures."""
    if not case.is_pair or "final/score" not in case.arrays:
        return
    clip, last = case.goldens.clip, case.last
    if last is None or (pictures := case.pictures(last)) is None:
        return
    images, same = pictures
    before = (enlarged(case.image, 512) + 0.5).byte().numpy()
    after = [plane.movedim(0, -1).numpy() for plane in images]
    source, *embeddings = clip.embed_images([before, *after]).clone()
    text = clip.embed_prompts([TEMPLATE.format(case.prompt)]).clone()
    rows = torch.stack(embeddings)
    limit = EMBEDDINGS[not all(same)]
    yield from case.check("final choice", "final/input_feature", source[None], EMBEDDINGS[0])
    yield from case.check("final choice", "final/text_feature", text, SMALL)
    yield from case.check("final choice", "final/image_features", rows, limit)
    cosines = rows @ text[0], rows @ source
    weights = case.facts["args"]["test_alpha"], case.facts["args"]["test_beta"]
    for name, found in (
        ("tti", cosines[0].softmax(dim=0)),
        ("iti", cosines[1].softmax(dim=0)),
        ("score", final_scores(*cosines, weights)),
    ):
        yield from case.check("final choice", f"final/{name}", found, limit)
    chosen = final_choice(*cosines, weights)
    yield from case.fact("final choice", "winner", chosen, stored_winner(case))


def schedule(case: RegionCase) -> Iterator[Check]:
    """Learning rates of passes, and those of units."""
    rates = [call["lr"] for call in case.calls.values() if "lr" in call]
    if rates and case.is_pair:
        steps = case.facts["args"]["epochs"] * case.facts["args"]["per_image_iteration"]
        found = learning_rates(case.facts["args"]["lr"], steps)[: len(rates)]
        yield case.error("schedule", "lr", furthest(found, rates), 1e-12)
    for name in [name for name in case.arrays if name.startswith("lr/T")]:
        stored = case.arrays[name]
        found = learning_rates(RATE, int(name.removeprefix("lr/T")))
        yield from case.check("schedule", name, found[: len(stored)], 1e-12)


def learning_rates(rate: float, steps: int) -> list[float]:
    """The cosine schedule, which is stepped before the optimiser."""
    return [rate / 2 * (1 + math.cos(math.pi * (i + 1) / steps)) for i in range(steps)]


def coordinates(case: RegionCase) -> Iterator[Check]:
    """Pixels of cells, and anchors of given maps."""
    cells = torch.arange(GRID).float()
    if "coord/mapped_fp32" in case.arrays:
        mapped = cells * ((IMAGE_SIZE - 1) / (GRID - 1))
        yield from case.check("coordinates", "coord/mapped_fp32", mapped, 0)
    for precision in ("fp32", "fp16"):
        found = pixel_boxes(cells, IMAGE_SIZE, GRID)
        yield from case.check("coordinates", f"coord/ceil_{precision}", found, 0)
    for name in [name for name in case.arrays if re.fullmatch(r"points/w\d+_n\d+", name)]:
        largest, count = map(int, re.findall(r"\d+", name))
        found = torch.stack(
            [anchor_points(one, count, largest, "reference") for one in case.arrays["points/arr"]]
        )
        yield from case.check("points", name, found, 0)


def unit_regions(case: RegionCase) -> Iterator[Check]:
    """Sizes and boxes of given features, and what their gradients would be."""
    for unit in dict.fromkeys(re.findall(r"region/(\w+)/feats", "\n".join(case.arrays))):
        prefix = f"region/{unit}/"
        weights = case.goldens.folder / f"units_region_{unit}.safetensors"
        if not weights.exists() or f"{prefix}attn_cls" not in case.arrays:
            continue
        facts = case.facts[unit]
        network = published_network(weights, facts["max_window_size"])
        tokens = case.arrays[f"{prefix}feats"].float()
        attention = case.arrays[f"{prefix}attn_cls"].float()
        maps = torch.stack([saliency(one) for one in attention])
        if (stored := case.arrays.get(f"{prefix}saliency")) is not None:
            case.arrays.seen.add(f"{prefix}saliency")
            pairs = zip(maps, stored, attention, strict=True)
            error = max(furthest(*among_equals(*three)) for three in pairs)
            yield case.error("saliency", f"{prefix}saliency", error, SMALL)
            maps = stored
        count = facts["point_number"]
        points = torch.stack(
            [anchor_points(one, count, facts["max_window_size"], "reference") for one in maps]
        )
        yield from case.check("points", f"{prefix}points", points, 0)
        with torch.no_grad():
            yield from _unit(case, prefix, network, tokens, points)
        if f"{prefix}surrogate_W" in case.arrays:
            yield from _gradients(case, prefix, network, tokens[0], points[0])


def among_equals(found: Tensor, stored: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps in the order of attention, then of their own: half precision has equal values,
    whose order the published sort leaves open.
    """
    mean = attention.mean(dim=0)
    first, second = (
        one.flatten()[torch.from_numpy(np.lexsort((one.flatten().numpy(), mean.numpy())))]
        for one in (found, stored)
    )
    return first, second


def _unit(
    case: RegionCase, prefix: str, network: RegionNetwork, tokens: Tensor, points: Tensor
) -> Iterator[Check]:
    """Sizes and boxes with the stored noise, image by image."""
    images, count = points.shape[:2]
    regions = torch.stack(
        [
            network.region_features(network.feature_map(one), anchors)
            for one, anchors in zip(tokens, points, strict=True)
        ]
    )
    index = torch.arange(count).expand(*regions.shape[:3])[..., None]
    boxes = torch.stack([network.regions(anchors, GRID) for anchors in points])
    yield from case.check("regions", f"{prefix}roi_region", torch.cat([index, boxes], dim=-1), 0)
    stacked = regions.reshape(images * count, -1, *regions.shape[-2:])
    yield from case.check("regions", f"{prefix}roi_feats", stacked, SMALL)
    log_probabilities = torch.cat([network(one) for one in regions])
    yield from case.check("sizes", f"{prefix}log_probs", log_probabilities, SMALL)
    if f"{prefix}gumbel" in case.arrays:
        gumbel = case.arrays[f"{prefix}gumbel"]
        choice = network.choose(points.flatten(0, 1), log_probabilities, gumbel, GRID)
        yield from _boxes(case, prefix, choice)


def _gradients(
    case: RegionCase, prefix: str, network: RegionNetwork, tokens: Tensor, points: Tensor
) -> Iterator[Check]:
    """What the published optimiser would do, if a loss reached the boxes."""
    target = case.arrays[f"{prefix}surrogate_W"]
    rates = learning_rates(RATE, case.facts["corner"]["surrogate_T"])
    optimiser = torch.optim.Adam(network.layers.parameters(), RATE, BETAS, weight_decay=DECAY)
    for step, rate in enumerate(rates):
        part = f"{prefix}st{step}/"
        if f"{part}gumbel" not in case.arrays:
            return
        network.zero_grad()
        log_probabilities = network(network.region_features(network.feature_map(tokens), points))
        choice = network.choose(points, log_probabilities, case.arrays[f"{part}gumbel"], GRID)
        loss = (choice.boxes * target).sum() / (GRID - 1)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        for name, found in (
            ("log_probs", log_probabilities.detach()),
            ("bbox", choice.boxes.detach()),
            ("loss", loss.detach()),
        ):
            yield from case.check("gradients", f"{part}{name}", found, SMALL)
        for name, parameter in network.named_parameters():
            published = name.removeprefix("layers.")
            yield from case.check("gradients", f"{part}grad/{published}", parameter.grad, SMALL)
            yield from case.check(
                "gradients", f"{part}param/{published}", parameter.detach(), SMALL
            )


def unit_losses(case: RegionCase) -> Iterator[Check]:
    """The three losses of given pictures."""
    if "loss/results32" not in case.arrays or "loss/source32" not in case.arrays:
        return
    encoders = case.goldens.encoders
    painted, source = (
        case.arrays[f"loss/{name}32"].repeat_interleave(n, dim=-1).repeat_interleave(n, dim=-2)
        for name, n in (("results", 16), ("source", 8))
    )
    texts = encode_texts(encoders, "coffee", "soft drink")

    def generator() -> Generator:
        return Generator().manual_seed(case.facts["loss_seed"])

    before, after = source / 255, painted.float()
    for name, pictures, antialias in (
        ("as_is", after, False),
        ("results_div255", after / 255, False),
        ("antialias_true", after, True),
    ):
        found = region_losses(encoders, before, pictures, texts, generator(), antialias=antialias)
        values = torch.stack([part.mean() for part in (found.weighted(), *found)])
        yield from case.check("losses", f"loss/{name}/values", values, LOSS)
    draws = generator()
    text = text_views(after, encoders.side, draws, antialias=False)
    pairs = direction_views(before, after, encoders.side, draws, antialias=False).flatten(0, 1)
    views = torch.cat([text, pairs])
    means = F.avg_pool2d(views.flatten(0, 1), 16).unflatten(0, views.shape[:2])
    yield from case.check("views", "loss/as_is/views_pool16", means, VIEWS[0])
    yield from case.check("embeddings", "loss/as_is/emb", encoders.images(views), EMBEDDINGS[0])
    small = [resized(images, encoders.side, antialias=False) for images in (before, after)]
    layouts = [encoders.self_similarity(images)[:, ::4, ::4] for images in small]
    rows = torch.stack(layouts, dim=1).flatten(0, 1)
    yield from case.check("self-similarity", "loss/as_is/selfsim_s4", rows, LAYOUTS[0])
    first = F.avg_pool2d(small[1][0], 16)
    yield from case.check("views", "loss/resize224_first_pool16", first, VIEWS[0])


def unit_choice(case: RegionCase) -> Iterator[Check]:
    """The final choice of given cosines; embeddings of given texts."""
    for name in [name for name in case.arrays if re.fullmatch(r"select/\w+/text_cos", name)]:
        part = name.removesuffix("text_cos")
        if f"{part}image_cos" not in case.arrays:
            continue
        text, image = (case.arrays[f"{part}{kind}_cos"] for kind in ("text", "image"))
        yield from case.check("final choice", f"{part}tti", text.softmax(dim=0), SMALL)
        yield from case.check("final choice", f"{part}iti", image.softmax(dim=0), SMALL)
        yield from case.check("final choice", f"{part}chosen", final_choice(text, image), 0)
    if "text/emb" in case.arrays and "text_prompts" in case.facts:
        encoders, prompts = case.goldens.encoders, case.facts["text_prompts"]
        yield from case.check("texts", "text/emb", encoders.texts(prompts), SMALL)
        for prompt, ids in case.facts.get("tokens", {}).items():
            tokens = encoders.tokenizer([prompt])[0, : len(ids)].tolist()
            yield from case.fact("texts", f"tokens of {prompt!r}", tokens, ids)


def generator_at(state: Tensor) -> Generator:
    generator = Generator()
    generator.set_state(state)
    return generator


QUICK_REGION_FAMILIES = (
    picture_and_saliency,
    boxes,
    schedule,
    coordinates,
    unit_regions,
    unit_losses,
    unit_choice,
)
REGION_FAMILIES = (*QUICK_REGION_FAMILIES, painted, losses, winner)
