"""The few-step editors' formulas written a second time, slowly and in float64.

One sample and one mask at a time, with the networks of `oracle.Oracle`; shares nothing with the
package.
"""

from math import exp, log, sqrt

import numpy as np
import torch
from oracle import Array, Mask, Oracle, Text, summed


def draws(count: int, shape: tuple[int, ...], seed: int) -> Array:
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    return noise.double().numpy()


def chord(
    slow: Oracle,
    x0: Array,
    source: str,
    target: str,
    mask: Mask,
    *,
    start: float,
    delta: float,
    strength: float,
    refinement: float | None,
    seed: int,
) -> Array:
    (n,) = draws(1, x0.shape, seed)

    def noised(x: Array, share: float) -> Array:
        alpha = slow.alpha(round(1000 * share) - 1)
        return sqrt(alpha) * x + sqrt(1 - alpha) * n

    def clean(z: Array, share: float, prompt: str) -> Array:
        timestep = round(1000 * share) - 1
        alpha = slow.alpha(timestep)
        eps = slow.noise(z, timestep, slow.text(prompt, []))
        return (z - sqrt(1 - alpha) * eps) / sqrt(alpha)

    def dv(share: float) -> Array:
        z = noised(x0, share)
        return clean(z, share, target) - clean(z, share, source)

    u = (delta * dv(start) + start * dv(start - delta)) / (start + delta)
    x = x0.copy()
    for cell in np.argwhere(mask):
        x[:, *cell] += strength * u[:, *cell]
    return x if refinement is None else clean(noised(x, refinement), refinement, target)


def schedule(slow: Oracle, steps: int, skip: float) -> tuple[list[int], list[float], list[float]]:
    """Time steps, and signal and noise of steps + 1 levels."""
    whole = int(steps * (1 + skip))
    timesteps = [1000 // (whole + 1) * k + 1 for k in range(steps, 0, -1)]
    alphas = [*(slow.alpha(t) for t in timesteps), 1.0]
    return timesteps, [sqrt(a) for a in alphas], [sqrt(1 - a) for a in alphas]


def infedit(
    slow: Oracle,
    x0: Array,
    source: str,
    target: str,
    mask: Mask,
    *,
    blended: str,
    blend_threshold: float | None,
    steps: int,
    skip: float,
    seed: int,
) -> Array:
    """Both branches, step after step; no word is in a prompt twice."""
    timesteps, a, s = schedule(slow, steps, skip)
    noise = [*reversed(draws(steps, x0.shape, seed)), np.zeros_like(x0)]
    texts = slow.text(source, []), slow.text(target, [])
    x_s = x_t = a[0] * x0 + s[0] * noise[0]
    maps = [np.zeros((16, 16)), np.zeros((16, 16))]
    for i, timestep in enumerate(timesteps):
        eps_s, eps_t = slow.noise(x_s, timestep, texts[0]), slow.noise(x_t, timestep, texts[1])
        x0_t = x0 + ((x_t - x_s) - s[i] * (eps_t - eps_s)) / a[i]
        if blended and blend_threshold is not None:
            editable = np.zeros((16, 16), dtype=bool)
            words = zip((source, target), blended.split(), (x_s, x_t), texts, strict=True)
            for k, (prompt, word, x, text) in enumerate(words):
                columns = [1 + prompt.split().index(word)]  # every word has one token
                maps[k] = maps[k] + summed(slow.attention(x, timestep, text), columns)
                padded = np.pad(maps[k], 1)
                widened = np.max(
                    [padded[r : r + 16, c : c + 16] for r in range(3) for c in range(3)], axis=0
                )
                editable |= widened / widened.max() > max(blend_threshold, 0.15 / a[i])
            x0_t = np.where(editable, x0_t, x0)
        x_t = a[i + 1] * x0_t + s[i + 1] * noise[i + 1]
        x_s = a[i + 1] * x0 + s[i + 1] * noise[i + 1]
        if i < steps - 1:
            x_t = np.where(mask, x_t, x_s)
    return x_t


def ledits_pp(
    slow: Oracle,
    x0: Array,
    source: str,
    target: str,
    mask: Mask,
    *,
    scale: float,
    threshold: float,
    order: int,
    steps: int,
    skip: float,
    seed: int,
) -> Array:
    """Between two prompts: the source comes back whole where nothing is guided."""
    timesteps, a, s = schedule(slow, steps, skip)
    noise = [*reversed(draws(steps, x0.shape, seed))]
    x = [*(a[i] * x0 + s[i] * noise[i] for i in range(steps)), x0]
    probe, columns, _ = slow.changed(source, target)
    texts = slow.text(source, []), slow.text(target, [])

    def mean(y: Array, eps: Array, i: int, clean: list[Array]) -> Array:
        """clean: x0 as every step so far predicted it; gets this step's."""
        clean.append((y - s[i] * eps) / a[i])
        if i == steps - 1:
            return clean[i]
        lam = [log(a[k] / s[k]) for k in range(steps)]
        h = lam[i + 1] - lam[i]
        found = s[i + 1] / s[i] * exp(-h) * y + a[i + 1] * (1 - exp(-2 * h)) * clean[i]
        if order == 2 and i > 0:
            r = (lam[i] - lam[i - 1]) / h
            found += a[i + 1] * (1 - exp(-2 * h)) * (clean[i] - clean[i - 1]) / (2 * r)
        return found

    y, clean_source, clean_edit = x[0], [], []  # type: ignore[var-annotated]
    for i, timestep in enumerate(timesteps):
        z = x[i + 1] - mean(x[i], slow.noise(x[i], timestep, texts[0]), i, clean_source)
        eps, eps_target = (slow.noise(y, timestep, text) for text in texts)
        guidance = scale * (eps_target - eps)
        layers = slow.attention(y, timestep, texts[0 if probe == source else 1])
        attended = smoothed(summed(layers, columns))
        differs = abs(guidance).sum(axis=0)
        inside = attended >= np.quantile(attended, threshold)
        inside &= differs >= np.quantile(differs, threshold)
        y = mean(y, eps + guidance * inside, i, clean_edit) + z
        if i < steps - 1:
            y = np.where(mask, y, x[i + 1])
    return y


def smoothed(attention: Array) -> Array:
    """Under the 3 x 3 kernel exp(-(u - 1)^2) exp(-(v - 1)^2), the edge mirrored."""
    padded = np.pad(attention, 1, mode="reflect")
    weights = np.array([exp(-1), 1.0, exp(-1)])
    weights /= weights.sum()
    found = np.zeros_like(attention)
    for r in range(3):
        for c in range(3):
            found += weights[r] * weights[c] * padded[r : r + len(found), c : c + len(found)]
    return found


def renoise(
    slow: Oracle,
    x0: Array,
    source: str,
    *,
    steps: int,
    first: tuple[int, int],
    later: tuple[int, int],
) -> list[Array]:
    """Noisiest first, the picture last."""
    text: Text = slow.text(source, [])
    timesteps = [1000 // steps * k + 1 for k in range(steps)]
    alpha = [slow.alpha(0), *(slow.alpha(t) for t in timesteps)]
    found = [x0]
    for i, timestep in enumerate(timesteps):
        before, after = alpha[i], alpha[i + 1]

        def led(eps: Array, before: float = before, after: float = after) -> Array:
            clean = (found[0] - sqrt(1 - before) * eps) / sqrt(before)
            return sqrt(after) * clean + sqrt(1 - after) * eps

        predictions, z = [], x0 if i == 0 else found[0]
        for _ in range(first[1] if i == 0 else later[1]):
            predictions.append(slow.noise(z, timestep, text))
            z = led(predictions[-1])
        kept = predictions[slice(*(first if i == 0 else later))]
        found.insert(0, led(sum(kept) / len(kept)))  # type: ignore[arg-type]
    return found
