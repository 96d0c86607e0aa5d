"""The language of the shapes world: scenes, their prompts, and the ten kinds of edits.

Draws descriptions only; knows neither pixels nor files. A scene carries its own jitter (placement,
texture phases), so that two scenes which share an object show the very same object.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from numpy.random import Generator

Choice = TypeVar("Choice")

STYLES = ("sketch", "sepia", "neon")
SIZES = ("small", "big")
POSES = ("tilted", "flipped")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
MATERIALS = ("striped", "dotted", "checkered")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "moon")
SLOTS = ("left", "right", "top", "bottom")
BACKGROUNDS = ("grass", "sand", "snow", "brick", "water", "wood")
WORDS = (
    *("a", "and", "of", "on", "the"),
    *(*STYLES, *SIZES, *POSES, *COLORS, *MATERIALS, *SHAPES, *SLOTS, *BACKGROUNDS),
)
"""Every word a prompt can hold; each is one token of the miniature's vocabulary."""

CLASHES = frozenset(
    {
        ("green", "grass"),
        ("yellow", "sand"),
        ("white", "snow"),
        ("red", "brick"),
        ("blue", "water"),
        ("orange", "wood"),
    }
)
"""(colour, background) pairs that cannot be told apart; no scene has one."""

OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}

POSES_OF: dict[str, tuple[str, ...]] = {
    "circle": (),
    "ring": (),
    "square": ("tilted",),
    "cross": ("tilted",),
    "star": ("tilted",),
    "triangle": POSES,
    "heart": POSES,
    "moon": POSES,
}
"""The poses that show: turning a circle changes nothing."""

BACKGROUND, EVERYTHING = 2, 3
"""Where a word of the prompt points, beside 0 and 1 for the first and the second object."""


@dataclass(frozen=True)
class Thing:
    """One object. ``jitter``: six numbers in [0, 1) for x, y, scale, angle and two phases."""

    color: str
    shape: str
    size: str | None
    pose: str | None
    material: str | None
    slot: str | None
    jitter: tuple[float, ...]

    def words(self) -> list[str]:
        slot = ("on", "the", self.slot) if self.slot else ()
        described = ("a", self.size, self.pose, self.color, self.material, self.shape, *slot)
        return [word for word in described if word]


@dataclass(frozen=True)
class Scene:
    """One or two objects on a background. ``jitter``: three numbers in [0, 1) for its texture."""

    things: tuple[Thing, ...]
    background: str
    style: str | None
    jitter: tuple[float, ...]

    def words(self) -> list[tuple[str, int]]:
        """The prompt's words, each with what it points at (an object, or one of the constants)."""
        words = [(word, EVERYTHING) for word in ("a", self.style, "of") if self.style and word]
        for index, thing in enumerate(self.things):
            if index:
                words.append(("and", index))
            words += [(word, index) for word in thing.words()]
        return words + [(word, BACKGROUND) for word in ("on", self.background)]

    def prompt(self) -> str:
        return " ".join(word for word, _ in self.words())


@dataclass(frozen=True)
class Edit:
    """Two scenes that differ in one thing. ``kind`` is in 1..9 even where type 0 was asked for."""

    kind: int
    source: Scene
    target: Scene

    def changed_things(self) -> list[int]:
        """Indices of the objects that differ between the two scenes."""
        longest = max(self.source.things, self.target.things, key=len)
        shared = list(zip(self.source.things, self.target.things, strict=False))
        return [i for i in range(len(longest)) if i >= len(shared) or shared[i][0] != shared[i][1]]


def _pick(rng: Generator, options: Sequence[Choice]) -> Choice:
    return options[int(rng.random() * len(options))]


def _maybe(rng: Generator, chance: float, options: Sequence[str]) -> str | None:
    return _pick(rng, options) if options and rng.random() < chance else None


def _colors_on(background: str, things: Sequence[Thing]) -> list[str]:
    used_colors = {thing.color for thing in things}
    return [c for c in COLORS if c not in used_colors and (c, background) not in CLASHES]


def _sample_thing(
    rng: Generator, background: str, slot: str | None, neighbours: Sequence[Thing] = ()
) -> Thing:
    shape = _pick(rng, [s for s in SHAPES if s not in {thing.shape for thing in neighbours}])
    return Thing(
        color=_pick(rng, _colors_on(background, neighbours)),
        shape=shape,
        size=_maybe(rng, 0.35, SIZES),
        pose=_maybe(rng, 0.3, POSES_OF[shape]),
        material=_maybe(rng, 0.4, MATERIALS),
        slot=slot,
        jitter=tuple(rng.random(6).tolist()),
    )


def sample_scene(rng: Generator, count: int | None = None) -> Scene:
    """A random scene with one (42 %) or two objects, or with exactly ``count`` of them.

    A lone object has a slot in half of the scenes; two objects have opposite slots, different
    colours and different shapes.
    """
    background = _pick(rng, BACKGROUNDS)
    count = count or (1 if rng.random() < 0.42 else 2)
    slot = _pick(rng, SLOTS) if count == 2 or rng.random() < 0.5 else None
    things = [_sample_thing(rng, background, slot)]
    if count == 2 and slot:
        things.append(_sample_thing(rng, background, OPPOSITE[slot], things))
    style, jitter = _maybe(rng, 0.25, STYLES), tuple(rng.random(3).tolist())
    return Scene(tuple(things), background, style, jitter)


def _thing_changes(kind: int, thing: Thing, scene: Scene) -> list[Thing]:
    """What ``thing`` may become by an edit of this kind; a word may be replaced, added, removed."""
    if kind == 1:
        used_shapes = {other.shape for other in scene.things}
        fitting = [s for s in SHAPES if thing.pose is None or thing.pose in POSES_OF[s]]
        return [replace(thing, shape=shape) for shape in fitting if shape not in used_shapes]
    if kind == 6:
        return [replace(thing, color=c) for c in _colors_on(scene.background, scene.things)]
    attribute, words = {
        4: ("size", SIZES),
        5: ("pose", POSES_OF[thing.shape]),
        7: ("material", MATERIALS),
    }[kind]
    options = _others((None, *words), getattr(thing, attribute))
    return [replace(thing, **{attribute: word}) for word in options]


def sample_edit(rng: Generator, edit_type: int) -> Edit:
    """A random edit of PIE-Bench's type 0..9 (methods.md, section 1); type 0 is one of 1..9."""
    kind = edit_type or 1 + int(rng.random() * 9)
    if kind in (2, 3):
        pair = sample_scene(rng, count=2)
        single = replace(pair, things=pair.things[:1])
        return Edit(kind, single, pair) if kind == 2 else Edit(kind, pair, single)
    scene = sample_scene(rng)
    if kind == 8:
        colors = {thing.color for thing in scene.things}
        allowed = [b for b in BACKGROUNDS if not any((c, b) in CLASHES for c in colors)]
        target = replace(scene, background=_pick(rng, _others(allowed, scene.background)))
    elif kind == 9:
        target = replace(scene, style=_pick(rng, _others((None, *STYLES), scene.style)))
    else:
        index = int(rng.random() * len(scene.things))
        changes = _thing_changes(kind, scene.things[index], scene)
        if not changes:  # a circle has no pose to change: draw another scene
            return sample_edit(rng, kind)
        things = list(scene.things)
        things[index] = _pick(rng, changes)
        target = replace(scene, things=tuple(things))
    return Edit(kind, scene, target)


def _others(options: Sequence[Choice], present: Choice) -> list[Choice]:
    return [option for option in options if option != present]
