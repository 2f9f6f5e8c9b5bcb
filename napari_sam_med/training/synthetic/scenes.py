"""Label maps of invented bodies: many parts, and objects that are sets of parts.

An object is rarely one homogeneous patch. A heart is a wall around a cavity with papillary muscles, a bone
is cortex and marrow, a stomach holds fluid and gas, a tumour has a core, a rim and oedema. Each composite
here offers several targets (all of it, its hole, its ring), so that the network has to find out which one a
prompt means.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from napari_sam_med.training.synthetic.shapes import OUTLINES, Field, butterfly, smooth_noise

__all__ = [
    "CONTRASTING",
    "SIZE",
    "STRUCTURES",
    "Scene",
    "draw_background",
    "draw_composite",
    "draw_scene",
    "warped_coordinates",
]

SIZE = 256
CONTRASTING = 3000
"""Added to the group of an inner part that never looks like its surroundings."""
_MAX_PARTS = 250
_HEART_SHARE = 0.4
_Bool = npt.NDArray[np.bool_]


@dataclass
class Scene:
    """A label map and what can be asked of it.

    Attributes
    ----------
    parts : array (SIZE, SIZE) uint8
        Part number of each pixel; 0 is air or background.
    group : list of int
        For each part, the composite that it belongs to (parts of one group may look alike).
    twin : list of int
        For each part, the part whose colour it shares (itself as a rule).
    objects : list of tuple (parts, weight)
        Targets: the parts of each, and how often it is to be asked for.
    """

    parts: npt.NDArray[np.uint8]
    group: list[int] = field(default_factory=lambda: [0])
    twin: list[int] = field(default_factory=lambda: [0])
    objects: list[tuple[tuple[int, ...], float]] = field(default_factory=list)

    def add_part(self, mask: _Bool, group: int, twin: int | None = None) -> int:
        """Paint a new part and return its number."""
        number = len(self.group)
        if number > _MAX_PARTS:
            return _MAX_PARTS
        self.group.append(group)
        self.twin.append(number if twin is None else twin)
        self.parts[mask] = number
        return number

    def lookup(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Membership (n, 256) of parts in objects, and the objects' weights (n,)."""
        table = np.zeros((len(self.objects), 256), dtype=np.bool_)
        for row, (parts, _) in zip(table, self.objects, strict=True):
            row[list(parts)] = True
        return table, np.array([weight for _, weight in self.objects], dtype=np.float32)


def draw_scene(seed: int) -> Scene:
    """Scene of this seed; the same seed gives the same scene."""
    rng = np.random.default_rng([seed, 20251])
    scene = Scene(np.zeros((SIZE, SIZE), dtype=np.uint8))
    x, y = warped_coordinates(rng)
    inside = draw_background(rng, scene, x, y)
    n = rng.integers(7, 20)
    sizes = np.exp(rng.uniform(np.log(5.0), np.log(66.0), n))
    order = np.argsort(-sizes * np.exp(rng.normal(0, 0.5, n)))
    rows, columns = np.nonzero(inside)
    for size in sizes[order]:
        at = rng.integers(len(rows))
        draw_composite(rng, scene, x, y, (columns[at], rows[at]), float(size))
    if rng.random() < _HEART_SHARE:  # whole, as nothing lies in front of it
        at = rng.integers(len(rows))
        size = float(np.exp(rng.uniform(np.log(22.0), np.log(80.0))))
        draw_composite(rng, scene, x, y, (columns[at], rows[at]), size, "heart")
    _pair_up(rng, scene)
    return scene


def warped_coordinates(rng: np.random.Generator) -> tuple[Field, Field]:
    """Coordinates x and y (SIZE, SIZE) of the pixels, smoothly bent."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    for amplitude, scale in ((rng.uniform(0, 8), 64), (rng.uniform(0, 2.5), 20)):
        x = x + amplitude * smooth_noise(rng, SIZE, scale)
        y = y + amplitude * smooth_noise(rng, SIZE, scale)
    return x, y


def draw_background(rng: np.random.Generator, scene: Scene, x: Field, y: Field) -> _Bool:
    """Body wall in layers, and a patchwork of tissues inside; returns where composites may lie."""
    inside = np.ones((SIZE, SIZE), dtype=np.bool_)
    if rng.random() < 0.6:
        half = rng.uniform(0.36, 0.62, 2) * SIZE
        centre = SIZE / 2 + rng.normal(0, 12, 2)
        p = rng.uniform(2, 3.2)
        distance = (np.abs((x - centre[0]) / half[0]) ** p + np.abs((y - centre[1]) / half[1]) ** p) ** (
            1 / p
        )
        layers = np.sort(rng.uniform(0.72, 1.0, rng.integers(0, 3)))[::-1]
        for level in (1.0, *layers):
            scene.add_part(distance < level, len(scene.group))
        inside = distance < (layers[-1] if len(layers) else 1.0)
    kinds = int(rng.integers(1, 9))
    if kinds > 1:
        scale = rng.uniform(18, 90)
        fields = np.stack([smooth_noise(rng, SIZE, scale) for _ in range(kinds)])
        winner = fields.argmax(0)
        for kind in range(kinds):
            part = scene.add_part((winner == kind) & inside, len(scene.group))
            scene.objects.append(((part,), 0.12))
    else:
        scene.add_part(inside, len(scene.group))
    return inside


def _outline(
    rng: np.random.Generator, x: Field, y: Field, centre: tuple[float, float], size: float
) -> tuple[Field, Field, Field]:
    """Depth field of a random outline, and its own coordinates u, v."""
    ratio = np.exp(rng.uniform(-0.45, 0.45))
    turn = rng.uniform(0, 2 * np.pi)
    dx, dy = x - centre[0], y - centre[1]
    u = (np.cos(turn) * dx + np.sin(turn) * dy) / (size * ratio)
    v = (-np.sin(turn) * dx + np.cos(turn) * dy) / (size / ratio)
    names = list(OUTLINES)
    draw = names[rng.choice(len(names), p=np.array(list(OUTLINES.values())))]
    return draw(rng, u, v).astype(np.float32), u, v


def draw_composite(
    rng: np.random.Generator,
    scene: Scene,
    x: Field,
    y: Field,
    centre: tuple[float, float],
    size: float,
    kind: str | None = None,
) -> None:
    """Draw one object with its inner structure (of a random kind) and note what may be asked of it."""
    reach = int(2.2 * size) + 6
    left, top = int(max(0, centre[0] - reach)), int(max(0, centre[1] - reach))
    window = (slice(top, int(centre[1] + reach)), slice(left, int(centre[0] + reach)))
    whole_parts = scene.parts
    scene.parts = whole_parts[window]  # a view: painting goes to the whole map
    depth, u, v = _outline(rng, x[window], y[window], centre, size)
    group = len(scene.group)
    if kind is None:
        kinds = [name for name, (_, _, smallest) in STRUCTURES.items() if size >= smallest]
        shares = np.array([STRUCTURES[name][1] for name in kinds])
        kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
    STRUCTURES[kind][0](rng, scene, depth, (u, v), group)
    scene.parts = whole_parts


def _plain(rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int) -> None:
    scene.objects.append(((scene.add_part(depth > 0, group),), 1.0))


def _hole(rng: np.random.Generator, depth: Field, uv: tuple[Field, Field], low: float, high: float) -> _Bool:
    """A smaller outline inside: the deeper level of the same field, or a disc a little off the centre."""
    level = rng.uniform(low, high)
    if rng.random() < 0.5:
        return depth > level
    shift = rng.normal(0, 0.25 * level, 2)
    radius = np.hypot(uv[0] - shift[0], uv[1] - shift[1])
    hole: _Bool = (radius < 1 - level) & (depth > 0.25 * level)
    return hole


def _ring(rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int) -> None:
    ring = scene.add_part(depth > 0, group)
    hole = scene.add_part(_hole(rng, depth, uv, 0.2, 0.6), group + 1000)
    scene.objects += [((ring,), 2.2), ((hole,), 0.6), ((ring, hole), 0.8)]


def _cavity(
    rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int
) -> None:
    """Wall and cavity, with muscles in the cavity that look like the wall and belong to the cavity."""
    ring = scene.add_part(depth > 0, group)
    inner = _hole(rng, depth, uv, 0.15, 0.55)
    hole = scene.add_part(inner, group + 1000)
    spots = []
    for _ in range(rng.integers(1, 5)):
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6)
        distance = np.hypot(uv[0] - radius * np.cos(angle), uv[1] - radius * np.sin(angle))
        spots.append(scene.add_part((distance < rng.uniform(0.06, 0.2)) & inner, group, twin=ring))
    scene.objects += [((hole, *spots), 1.2), ((ring,), 2.0), ((ring, hole, *spots), 0.6)]


def _shells(
    rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int
) -> None:
    levels = np.sort(rng.uniform(0.12, 0.75, 2))
    parts = [scene.add_part(depth > level, group + 1000 * k) for k, level in enumerate((0.0, *levels))]
    scene.objects += [
        (tuple(parts), 1.0),
        ((parts[1], parts[2]), 0.5),
        ((parts[2],), 0.3),
        ((parts[1],), 0.3),
    ]
    scene.objects.append(((parts[0],), 0.25))


def _cortex(
    rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int
) -> None:
    cortex = scene.add_part(depth > 0, group)
    marrow = scene.add_part(depth > rng.uniform(0.06, 0.25), group + 1000)
    scene.objects += [((cortex, marrow), 1.2), ((marrow,), 0.3)]


def _contents(
    rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int
) -> None:
    """A hollow organ: wall, fluid, and gas or contrast above or below a level."""
    wall = scene.add_part(depth > 0, group)
    lumen = depth > rng.uniform(0.04, 0.25)
    fluid = scene.add_part(lumen, group + 1000)
    turn = rng.uniform(0, 2 * np.pi)
    level = np.cos(turn) * uv[0] + np.sin(turn) * uv[1] > rng.uniform(-0.4, 0.4)
    gas = scene.add_part(lumen & level, group + 2000)
    scene.objects += [((wall, fluid, gas), 1.4), ((fluid, gas), 0.3), ((gas,), 0.2)]


def _inclusions(
    rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int
) -> None:
    """Vessels or lesions inside an organ: they belong to it."""
    body = scene.add_part(depth > 0, group)
    spots: list[int] = []
    for _ in range(rng.integers(1, 7)):
        x, y = rng.uniform(-0.7, 0.7, 2)
        stretch, turn = np.exp(rng.uniform(0, 1.2)), rng.uniform(0, np.pi)
        a, b = uv[0] - x, uv[1] - y
        distance = np.hypot(
            (np.cos(turn) * a + np.sin(turn) * b) / stretch, (np.cos(turn) * b - np.sin(turn) * a) * stretch
        )
        spot = (distance < rng.uniform(0.07, 0.28)) & (depth > 0.02)
        twin = spots[0] if spots and rng.random() < 0.7 else None
        spots.append(scene.add_part(spot, group + 1000, twin=twin))
    scene.objects.append(((body, *spots), 1.6))
    scene.objects += [((spot,), 0.2) for spot in spots]


def _phases(
    rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int
) -> None:
    """Two tissues in folds, as grey and white matter; now and then one of them is asked for."""
    first = scene.add_part(depth > 0, group)
    noise = smooth_noise(rng, max(uv[0].shape), rng.uniform(5, 30))[: uv[0].shape[0], : uv[0].shape[1]]
    second = scene.add_part((noise > rng.uniform(-0.7, 0.9)) & (depth > 0), group + 1000)
    scene.objects += [((first, second), 1.1), ((second,), 0.3), ((first,), 0.3)]


def _halo(rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int) -> None:
    """A lesion with oedema: an irregular halo, a rim and a core."""
    noise = smooth_noise(rng, max(uv[0].shape), rng.uniform(8, 30))[: uv[0].shape[0], : uv[0].shape[1]]
    halo = scene.add_part(depth + rng.uniform(0.1, 0.35) * noise > 0, group)
    rim = scene.add_part(depth > rng.uniform(0.25, 0.5), group + 1000)
    core = scene.add_part(depth > rng.uniform(0.55, 0.8), group + 2000)
    scene.objects += [
        ((halo, rim, core), 0.9),
        ((rim, core), 0.9),
        ((core,), 0.3),
        ((rim,), 0.4),
        ((halo,), 0.3),
    ]


def _heart(rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int) -> None:
    """A thick wall round one chamber, and a second chamber that hugs it; both hold the same blood.

    Blood always differs from muscle, so that a box tells the wall from its cavity.
    """
    wave = 0.06 * rng.standard_normal() * np.sin(3 * uv[0] + 2 * uv[1])
    left = np.hypot(uv[0] + 0.3, uv[1]) / 0.6 + wave
    right = np.hypot((uv[0] - 0.3) / rng.uniform(0.5, 0.7), uv[1] / rng.uniform(0.65, 0.95)) + wave
    free_wall = scene.add_part((right < 1) & (left > 1), group)
    chamber = scene.add_part(
        (right < rng.uniform(0.8, 0.95)) & (left > rng.uniform(1.0, 1.08)), group + CONTRASTING
    )
    wall = scene.add_part(left < 1, group, twin=free_wall)
    inner = left < rng.uniform(0.45, 0.85)
    cavity = scene.add_part(inner, group + CONTRASTING, twin=chamber)
    muscles = []
    for _ in range(rng.integers(0, 4)):
        angle = rng.uniform(0, 2 * np.pi)
        x, y = 0.25 * np.cos(angle) - 0.3, 0.25 * np.sin(angle)
        spot = np.hypot(uv[0] - x, uv[1] - y) < rng.uniform(0.05, 0.12)
        muscles.append(scene.add_part(spot & inner, group, twin=free_wall))
    scene.objects += [
        ((wall,), 3.5),
        ((cavity, *muscles), 1.3),
        ((chamber,), 1.3),
        ((wall, cavity, *muscles), 0.4),
    ]


def _cord(rng: np.random.Generator, scene: Scene, depth: Field, uv: tuple[Field, Field], group: int) -> None:
    """A cord in its fluid, with a butterfly of grey matter."""
    height = rng.uniform(0.6, 0.9)
    radius = np.hypot(uv[0], uv[1] / height)
    scene.add_part(radius < 1, group + 2000)
    cord = scene.add_part(radius < rng.uniform(0.65, 0.85), group)
    stretch = rng.uniform(0.42, 0.58)
    horns = butterfly(rng, uv[0] / stretch, uv[1] / (stretch * height)) > 0
    grey = scene.add_part(horns, group + 1000)
    scene.objects += [((cord, grey), 1.0), ((grey,), 1.2)]


STRUCTURES = {
    "plain": (_plain, 0.26, 0.0),
    "ring": (_ring, 0.10, 0.0),
    "cavity": (_cavity, 0.09, 7.0),
    "shells": (_shells, 0.06, 7.0),
    "cortex": (_cortex, 0.09, 0.0),
    "contents": (_contents, 0.08, 7.0),
    "inclusions": (_inclusions, 0.12, 7.0),
    "phases": (_phases, 0.06, 7.0),
    "halo": (_halo, 0.08, 0.0),
    "heart": (_heart, 0.10, 14.0),
    "cord": (_cord, 0.04, 10.0),
}
"""How each structure is drawn, how often, and the smallest half axis (pixels) at which it can be seen."""


def _pair_up(rng: np.random.Generator, scene: Scene) -> None:
    """Some targets are two alike pieces under one box, as an arched vessel cut twice."""
    single = [parts[0] for parts, weight in scene.objects if len(parts) == 1 and weight == 1.0]
    for _ in range(2 if len(single) > 1 else 0):
        a, b = rng.choice(single, 2, replace=False)
        scene.twin[b] = scene.twin[a]
        scene.objects.append(((int(a), int(b)), 0.35))
