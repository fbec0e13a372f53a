"""Toy worlds: short clips of one or two shaded objects that move in front of a painted background.

A `Scene` says everything about a clip; `render(scene)` draws it. The renderer is plain numpy: signed distance
fields (negative inside) give anti-aliased edges, bevels and soft shadows from one formula per shape, and only the
object's own box is computed for each frame. About 300 clips of 17 x 64 x 64 a second on one core.

Distances are in pixels, the y axis points down, times are in seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SHAPES = ("ball", "square", "triangle", "star", "heart", "ring", "diamond")
MOTIONS = ("left", "right", "up", "down", "bounce", "circle", "spin", "grow", "shrink", "zigzag", "still")
BACKGROUNDS = ("black", "white", "sky", "meadow", "night", "sunset", "sea", "desert", "checkerboard")
SIZES = ("small", "medium", "large")
SPEEDS = ("slow", "normal", "fast")
COLOURS_RGB: dict[str, tuple[int, int, int]] = {
    "red": (222, 28, 36),
    "orange": (255, 132, 14),
    "yellow": (252, 218, 26),
    "green": (36, 168, 52),
    "cyan": (30, 208, 220),
    "blue": (36, 76, 232),
    "purple": (136, 46, 204),
    "pink": (255, 112, 184),
    "white": (244, 244, 246),
}
COLOURS = tuple(COLOURS_RGB)
FPS_CHOICES = (4, 6, 8, 10, 12, 16, 20, 24)

SIZE_PX = 64  # clips are square
FRAMES = 17
RADIUS_PX = {"small": 8.0, "medium": 11.5, "large": 15.5}
SPEED_PX_S = {"slow": 6.5, "normal": 13.0, "fast": 24.0}  # along the path, for the four straight motions
CURVED = 2.0  # bounce, circle and zigzag run this much faster, so that a two-second clip shows the figure
SPIN_RAD_S = {"slow": 1.1, "normal": 2.2, "fast": 4.2}
GROW_PX_S = {"slow": 2.4, "normal": 4.6, "fast": 8.0}
RADIUS_LIMITS_PX = (5.0, 24.0)  # growing and shrinking stop here

# Two objects share a clip half by half; each keeps to its room, so that "left of" stays true from start to end.
ROOMS = ("all", "left", "right", "top", "bottom")
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
PAIR_SCALE = 0.74  # how much smaller objects are where two share the frame
_SIDE_BY_SIDE = ("up", "down", "bounce", "circle", "spin", "grow", "shrink", "still")
_STACKED = ("left", "right", "bounce", "circle", "spin", "grow", "shrink", "zigzag", "still")
MOTIONS_IN_ROOM: dict[str, tuple[str, ...]] = {  # none leads into the other object's room
    "all": MOTIONS,
    "left": (*_SIDE_BY_SIDE, "left"),
    "right": (*_SIDE_BY_SIDE, "right"),
    "top": (*_STACKED, "up"),
    "bottom": (*_STACKED, "down"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One clip of the toy world; `seed` fixes positions, directions and the painting of the background.

    `companion` is a second object; it has the other half of the frame, and the first object's background and FPS.
    """

    shape: str
    colour: str
    motion: str
    background: str
    size: str = "medium"
    speed: str = "normal"
    fps: int = 8
    seed: int = 0
    room: str = "all"
    companion: Scene | None = None

    def __post_init__(self) -> None:
        if self.companion is not None and OPPOSITE.get(self.room) != self.companion.room:
            raise ValueError(f"the companion of an object in room {self.room!r} cannot be in {self.companion.room!r}")

    @property
    def triple(self) -> tuple[str, str, str]:
        return self.shape, self.colour, self.motion

    @property
    def objects(self) -> tuple[Scene, ...]:
        """The objects as scenes of their own; of two, the left or upper one first."""
        if self.companion is None:
            return (self,)
        first, second = replace(self, companion=None), self.companion
        return (first, second) if self.room in ("left", "top") else (second, first)

    @property
    def arrangement(self) -> str:
        """One of ARRANGEMENTS."""
        return ARRANGEMENTS[0 if self.companion is None else 1 if self.room in ("left", "right") else 2]


ARRANGEMENTS = ("alone", "side by side", "one above the other")


def scene_from(fields: dict[str, Any]) -> Scene:
    """The inverse of dataclasses.asdict."""
    companion = fields.get("companion")
    return Scene(**(fields | {"companion": scene_from(companion) if companion else None}))


def is_held_out(scene: Scene) -> bool:
    """One in ten (shape, colour, motion) triples is never trained on: models that draw it have composed it.

    A scene of two objects is held out where either of them is.
    """
    digests = (hashlib.sha256("/".join(o.triple).encode()).digest() for o in scene.objects)
    return any(digest[0] < 26 for digest in digests)  # 26 / 256


def _sample_object(rng: np.random.Generator, fps: int | None, room: str) -> Scene:
    return Scene(
        shape=str(rng.choice(SHAPES)),
        colour=str(rng.choice(COLOURS)),
        motion=str(rng.choice(MOTIONS_IN_ROOM[room])),
        background=str(rng.choice(BACKGROUNDS)),
        size=str(rng.choice(SIZES, p=(0.25, 0.5, 0.25))),
        speed=str(rng.choice(SPEEDS, p=(0.25, 0.5, 0.25))),
        fps=int(rng.choice(FPS_CHOICES)) if fps is None else fps,
        seed=int(rng.integers(2**31)),
        room=room,
    )


def sample_scene(
    rng: np.random.Generator, *, held_out: bool | None = False, fps: int | None = None, pairs: float = 0.0
) -> Scene:
    """Draw a scene; `held_out` asks for a trained-on triple (False), an untrained one (True) or either (None).

    `pairs` is the share of scenes with two objects. One in six of those shows the same thing twice.
    """
    two = pairs > 0 and rng.random() < pairs
    while True:
        if not two:
            scene = _sample_object(rng, fps, "all")
        else:
            room = str(rng.choice(ROOMS[1:]))
            scene = _sample_object(rng, fps, room)
            other = replace(_sample_object(rng, fps, OPPOSITE[room]), background=scene.background, fps=scene.fps)
            if rng.random() < 1 / 6:
                other = replace(other, shape=scene.shape, colour=scene.colour, size=scene.size)
                if scene.motion in MOTIONS_IN_ROOM[other.room]:
                    other = replace(other, motion=scene.motion, speed=scene.speed)
            scene = replace(scene, companion=other)
        if held_out is None or is_held_out(scene) == held_out:
            return scene


# --- shapes: signed distance to a figure of about unit radius; p is (2, ...) -----------------------------------


def _polygon(p: Array, corners: NDArray[np.float64]) -> Array:
    """Exact signed distance to a closed polygon (corners (n, 2)), winding number for the sign."""
    distance2 = np.full(p.shape[1:], 1e9, np.float32)
    inside = np.zeros(p.shape[1:], bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = p[0] - np.float32(ax), p[1] - np.float32(ay)
        h = np.clip((wx * np.float32(ex) + wy * np.float32(ey)) * np.float32(1 / (ex * ex + ey * ey)), 0, 1)
        dx, dy = wx - h * np.float32(ex), wy - h * np.float32(ey)
        np.minimum(distance2, dx * dx + dy * dy, out=distance2)
        if ey != 0:
            crosses = (p[1] >= min(ay, by)) & (p[1] < max(ay, by))
            inside ^= crosses & (wx < wy * np.float32(ex / ey))
    distance = np.sqrt(distance2)
    return np.where(inside, -distance, distance)


def _corners(radii: list[float], start: float) -> NDArray[np.float64]:
    angles = start + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.asarray(radii)[:, None]


def _heart_outline() -> NDArray[np.float64]:
    """The classic sine heart (x = 16 sin^3 u, y = 13 cos u - 5 cos 2u - 2 cos 3u - cos 4u), to unit size."""
    u = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    x = 16 * np.sin(u) ** 3
    y = 13 * np.cos(u) - 5 * np.cos(2 * u) - 2 * np.cos(3 * u) - np.cos(4 * u)
    return np.stack([x, -y - 2.5], 1) / 15.0


_TRIANGLE = _corners([1.22] * 3, -np.pi / 2) + np.array([0.0, 0.18])
_STAR = _corners([1.24, 0.52] * 5, -np.pi / 2)
_HEART = _heart_outline()
_DIAMOND = np.array([[0.0, -1.25], [0.8, 0.0], [0.0, 1.25], [-0.8, 0.0]])


def _square(p: Array) -> Array:
    q = np.abs(p) - np.float32(0.86)
    outside = np.hypot(np.maximum(q[0], 0), np.maximum(q[1], 0))
    return outside + np.minimum(np.maximum(q[0], q[1]), 0)


_SDF: dict[str, Callable[[Array], Array]] = {
    "ball": lambda p: np.hypot(p[0], p[1]) - np.float32(1.0),
    "square": _square,
    "triangle": lambda p: _polygon(p, _TRIANGLE),
    "star": lambda p: _polygon(p, _STAR),
    "heart": lambda p: _polygon(p, _HEART),
    "ring": lambda p: np.abs(np.hypot(p[0], p[1]) - np.float32(0.76)) - np.float32(0.3),
    "diamond": lambda p: _polygon(p, _DIAMOND),
}


# --- motion ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Path:
    """Pose of the object for every frame: centre (frames, 2) px, radius (frames) px, angle (frames) rad."""

    centre_px: Array
    radius_px: Array
    angle_rad: Array


def _room_px(room: str, size_px: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Upper left and lower right corner (x, y) of the part of the frame that an object keeps to."""
    low, high, half = np.zeros(2), np.full(2, float(size_px)), size_px / 2
    match room:
        case "left":
            high[0] = half
        case "right":
            low[0] = half
        case "top":
            high[1] = half
        case "bottom":
            low[1] = half
    return low, high


def _straight(s: Array, v: float, r0: float, sign: int, low: float, high: float, jitter: float) -> Array:
    """Along one axis at speed v, laid so that the path is centred in low..high if it fits, else from its near end."""
    margin, middle, travel = r0 + 3.0, (low + high) / 2, v * float(s[-1])
    room = high - low - 2 * margin
    start = -travel / 2 + jitter * (room - travel) / 2 if travel < room else -max(room, 0.0) / 2
    return (middle + sign * (start + v * s)).astype(np.float32)


def path(scene: Scene, frames: int = FRAMES, size_px: int = SIZE_PX) -> Path:
    """Where the (first) object is in each frame. Straight paths are laid so that it is in view at the start."""
    rng = np.random.default_rng((scene.seed, 1))
    s = (np.arange(frames) / scene.fps).astype(np.float32)  # seconds
    shared = scene.room != "all"
    r0 = RADIUS_PX[scene.size] * rng.uniform(0.92, 1.08) * (PAIR_SCALE if shared else 1.0)
    v = SPEED_PX_S[scene.speed] * rng.uniform(0.94, 1.06)
    low, high = _room_px(scene.room, size_px)
    middle, margin = (low + high) / 2, r0 + 3.0
    spread = np.maximum(high - low - 2 * margin, 0.0)
    x0, y0 = (low + margin + rng.uniform(0, 1, 2) * (high - low - 2 * margin)) * 0.65 + middle * 0.35
    x, y = np.full(frames, x0, np.float32), np.full(frames, y0, np.float32)
    radius, angle = np.full(frames, r0, np.float32), np.zeros(frames, np.float32)
    match scene.motion:
        case "left" | "right" | "up" | "down":
            sign = -1 if scene.motion in ("left", "up") else 1
            axis = 0 if scene.motion in ("left", "right") else 1
            along = _straight(s, v, r0, sign, low[axis], high[axis], rng.uniform(-1, 1))
            x, y = (along, y) if axis == 0 else (x, along)
        case "bounce":
            amplitude = min(rng.uniform(15, 20), max(spread[1], 9.0))
            floor = high[1] - margin - rng.uniform(0, max(spread[1] - amplitude, 0))
            phase = s * (CURVED * v / (2 * amplitude)) + rng.uniform(0, 1)
            y = (floor - amplitude * np.abs(np.sin(np.pi * phase))).astype(np.float32)
        case "circle":
            orbit = min(rng.uniform(6, 7.5), 17 - r0) if shared else rng.uniform(11, 14)
            phase = rng.uniform(0, 2 * np.pi) + rng.choice((-1, 1)) * s * (CURVED * v / orbit)
            cx, cy = middle + rng.uniform(-3, 3, 2) * np.minimum(spread / 12, 1.0)
            x, y = (cx + orbit * np.cos(phase)).astype(np.float32), (cy + orbit * np.sin(phase)).astype(np.float32)
        case "zigzag":
            direction, amplitude = rng.choice((-1, 1)), rng.uniform(4.5, 6) if shared else rng.uniform(7, 9)
            travel = 0.8 * v * s[-1]
            x = (middle[0] + direction * (0.8 * v * s - min(travel, spread[0]) / 2)).astype(np.float32)
            wave = (s * (CURVED * 0.9 * v / (4 * amplitude)) + rng.uniform(0, 1)) % 1.0
            reach = amplitude + 1 if shared else 9.0
            y = middle[1] + np.clip(y0 - middle[1], -max(spread[1] / 2 - reach, 0), max(spread[1] / 2 - reach, 0))
            y = (y + amplitude * (4 * np.abs(wave - 0.5) - 1)).astype(np.float32)
        case "spin":
            angle = (rng.uniform(0, 2 * np.pi) + rng.choice((-1, 1)) * SPIN_RAD_S[scene.speed] * s).astype(np.float32)
        case "grow" | "shrink":
            change = GROW_PX_S[scene.speed] * s * (PAIR_SCALE if shared else 1.0)
            smallest, largest = (3.8, 13.5) if shared else RADIUS_LIMITS_PX
            if scene.motion == "grow":
                radius = np.minimum(max(r0 - 4, smallest) + change, largest).astype(np.float32)
            else:
                radius = np.maximum(min(r0 + 5, largest) - change, smallest).astype(np.float32)
            near = np.where(high - low < size_px, 2.0, 7.0)  # the middle of the room, so that it has space
            x = np.clip(x, middle[0] - near[0], middle[0] + near[0]).astype(np.float32)
            y = np.clip(y, middle[1] - near[1], middle[1] + near[1]).astype(np.float32)
        case "still":
            pass
        case _:
            raise ValueError(f"unknown motion {scene.motion!r}")
    return Path(np.stack([x, y], 1), radius, angle)


# --- backgrounds: painted once a clip ----------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _grid(size_px: int) -> tuple[Array, Array]:
    y, x = np.mgrid[0:size_px, 0:size_px].astype(np.float32) + np.float32(0.5)
    return x * np.float32(64 / size_px), y * np.float32(64 / size_px)  # backgrounds are painted in 64ths


def _vertical(y: Array, *stops: tuple[float, tuple[int, int, int]]) -> Array:
    at = [s for s, _ in stops]
    return np.stack([np.interp(y, at, [c[i] for _, c in stops]) for i in range(3)], -1).astype(np.float32)


def _over(picture: Array, alpha: Array, rgb: tuple[int, int, int] | Array) -> Array:
    return picture + alpha[..., None] * (np.asarray(rgb, np.float32) - picture)


def _soft(distance: Array, width: float = 1.0) -> Array:
    """1 inside (negative distance), 0 outside, a ramp of `width` between."""
    return np.clip(0.5 - distance / np.float32(width), 0, 1)


def _clouds(picture: Array, x: Array, y: Array, rng: np.random.Generator, count: int, low: float, high: float) -> Array:
    for k in range(count):
        cx, cy = (k + rng.uniform(0.15, 0.85)) * 64 / count, rng.uniform(low, high)
        puff = np.full_like(x, 9e9)
        for dx, dy, r in ((-5, 1.2, 3.6), (0, 0, 5.2), (5.2, 1.4, 3.8)):
            scale = rng.uniform(0.85, 1.15)
            puff = np.minimum(puff, np.hypot(x - cx - dx, (y - cy - dy) * 1.25) - r * scale)
        picture = _over(picture, 0.92 * _soft(puff, 2.5), (250, 252, 255))
    return picture


def _black(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return np.full((*x.shape, 3), 9, np.float32)


def _white(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return _vertical(y, (0, (253, 253, 254)), (64, (228, 229, 234)))


def _sky(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return _clouds(_vertical(y, (0, (72, 148, 236)), (64, (176, 216, 250))), x, y, rng, 3, 8, 56)


def _meadow(x: Array, y: Array, rng: np.random.Generator) -> Array:
    picture = _vertical(y, (0, (108, 178, 246)), (40, (206, 234, 252)))
    for level, tall, top, bottom in (
        (33, 3.5, (120, 190, 88), (92, 166, 62)),
        (41, 3.0, (104, 184, 62), (46, 124, 36)),
    ):
        ridge = level + tall * np.sin(x / rng.uniform(8, 13) + rng.uniform(0, 6.3))
        picture = _over(picture, _soft(ridge - y), _vertical(y, (level - 4, top), (64, bottom)))
    return picture


def _night(x: Array, y: Array, rng: np.random.Generator) -> Array:
    picture = _vertical(y, (0, (10, 11, 40)), (64, (36, 36, 92)))
    for _ in range(16):
        sx, sy = rng.uniform(2, 62, 2)
        glow = np.exp(-((x - sx) ** 2 + (y - sy) ** 2) / rng.uniform(0.8, 1.5))
        picture = _over(picture, glow * rng.uniform(0.6, 1.0), (250, 248, 226))
    mx, my = rng.uniform(46, 56), rng.uniform(8, 16)
    moon = np.maximum(np.hypot(x - mx, y - my) - 5.2, 4.4 - np.hypot(x - mx + 2.6, y - my + 1.4))
    return _over(picture, _soft(moon), (252, 244, 206))


def _sunset(x: Array, y: Array, rng: np.random.Generator) -> Array:
    picture = _vertical(y, (0, (74, 34, 106)), (26, (206, 62, 92)), (46, (252, 142, 66)), (64, (255, 196, 96)))
    sx, sy = rng.uniform(14, 50), rng.uniform(44, 52)
    distance = np.hypot(x - sx, y - sy)
    picture = _over(picture, 0.35 * np.exp(-distance / 9), (255, 240, 170))
    return _over(picture, _soft(distance - 7), (255, 240, 168))


def _sea(x: Array, y: Array, rng: np.random.Generator) -> Array:
    horizon = rng.uniform(19, 25)
    picture = _vertical(y, (0, (126, 188, 244)), (horizon, (226, 242, 252)))
    water = _vertical(y, (horizon, (52, 146, 196)), (64, (8, 54, 122)))
    depth = np.maximum(y - horizon, 0)
    ripple = np.sin(x * 0.55 + rng.uniform(0, 6.3) + 2.2 * np.sin(depth * 0.32)) * np.sin(
        depth * 0.85 + rng.uniform(0, 6.3)
    )
    water += 15 * np.clip(depth / 12, 0, 1)[..., None] * ripple[..., None]
    return _over(picture, _soft(horizon - y), water)


def _desert(x: Array, y: Array, rng: np.random.Generator) -> Array:
    picture = _vertical(y, (0, (250, 206, 138)), (36, (254, 238, 206)))
    for level, tall, top, bottom in (
        (35, 4.5, (226, 180, 112), (206, 152, 84)),
        (44, 5.0, (206, 152, 86), (168, 112, 54)),
    ):
        u = x / rng.uniform(17, 24) + rng.uniform(0, 1)
        ridge = level - tall * (1 - np.abs(2 * (u % 1.0) - 1) ** 1.4) + 2
        picture = _over(picture, _soft(ridge - y), _vertical(y, (level - 4, top), (64, bottom)))
    return picture


def _checkerboard(x: Array, y: Array, rng: np.random.Generator) -> Array:
    ox, oy = rng.integers(0, 8, 2)
    light = (((x + ox) // 8 + (y + oy) // 8) % 2)[..., None]
    return (132 + 70 * light) * np.ones(3, np.float32)


_PAINT: dict[str, Callable[[Array, Array, np.random.Generator], Array]] = {
    "black": _black,
    "white": _white,
    "sky": _sky,
    "meadow": _meadow,
    "night": _night,
    "sunset": _sunset,
    "sea": _sea,
    "desert": _desert,
    "checkerboard": _checkerboard,
}


def paint_background(scene: Scene, size_px: int = SIZE_PX) -> Array:
    """The empty stage of a scene, (h, w, 3) in 0..255."""
    x, y = _grid(size_px)
    return _PAINT[scene.background](x, y, np.random.default_rng((scene.seed, 2))).astype(np.float32)


# --- the object -----------------------------------------------------------------------------------------------

_LIGHT = np.array([-0.48, -0.62, 0.62], np.float32)  # towards the lamp: left, up, towards the viewer
_SHADOW_PX = (1.8, 2.8)


def _local(scene: Scene, x: Array, y: Array, radius_px: float, angle_rad: float) -> Array:
    """Pixel offsets from the centre -> the figure's own coordinates (a ring turns like a coin, the rest in plane)."""
    if scene.shape == "ring" and scene.motion == "spin":
        width = 0.22 + 0.78 * abs(np.cos(angle_rad))
        return np.stack([x / np.float32(radius_px * width), y / np.float32(radius_px)])
    c, s = np.float32(np.cos(angle_rad) / radius_px), np.float32(np.sin(angle_rad) / radius_px)
    return np.stack([c * x + s * y, c * y - s * x])


def _draw(
    canvas: Array, scene: Scene, centre_px: Array, radius_px: float, angle_rad: float
) -> tuple[slice, slice, Array] | None:
    """Paint shadow and object on `canvas` in place; answers the box and the object's alpha inside it."""
    size_px = canvas.shape[0]
    unit = size_px / 64
    cx, cy, radius = float(centre_px[0]) * unit, float(centre_px[1]) * unit, float(radius_px) * unit
    reach = 1.3 * radius + 7 * unit
    x1, x2 = max(int(cx - reach), 0), min(int(cx + reach) + 1, size_px)
    y1, y2 = max(int(cy - reach), 0), min(int(cy + reach) + 1, size_px)
    if x2 - x1 < 2 or y2 - y1 < 2:
        return None
    ys, xs = slice(y1, y2), slice(x1, x2)
    y, x = np.mgrid[ys, xs].astype(np.float32) + np.float32(0.5)
    x, y = x - np.float32(cx), y - np.float32(cy)
    sdf = _SDF[scene.shape]

    offset_x, offset_y = (np.float32(o * unit) for o in _SHADOW_PX)
    shadow = sdf(_local(scene, x - offset_x, y - offset_y, radius, angle_rad)) * radius
    box = canvas[ys, xs]
    box *= 1 - 0.42 * _soft(shadow - unit, 5 * unit)[..., None]

    p = _local(scene, x, y, radius, angle_rad)
    d = sdf(p) * radius
    alpha = _soft(d)
    if scene.shape == "ball":
        nx, ny = x / radius, y / radius
        nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0))
    elif scene.shape == "ring":  # a torus: the normal turns from the outer to the inner edge
        rho = np.hypot(x, y) + 1e-6
        tilt = np.clip((np.hypot(p[0], p[1]) - 0.76) / 0.3, -1, 1)
        nx, ny, nz = tilt * x / rho, tilt * y / rho, np.sqrt(1 - tilt * tilt)
    else:  # a slab with a bevelled rim
        gy, gx = np.gradient(d)
        rim = np.clip(1 + d / (0.28 * radius), 0, 1)
        nx, ny, nz = 0.75 * rim * gx, 0.75 * rim * gy, np.ones_like(d)
    lambert = (nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2]) / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-6)
    base = np.asarray(COLOURS_RGB[scene.colour], np.float32)
    rgb: Array = np.broadcast_to(base, (*x.shape, 3))
    if scene.shape == "ball" and scene.motion == "spin":  # a beach ball, or nobody could see it turn
        stripe = _soft(np.abs(p[1]) * radius - 0.3 * radius)
        rgb = _over(
            rgb,
            stripe,
            0.35 * base + 0.65 * np.array([255, 250, 235], np.float32)
            if scene.colour != "white"
            else np.array([120, 124, 136], np.float32),
        )
    if scene.shape in ("ball", "ring"):
        light = 0.42 + 0.72 * np.clip(lambert, 0, 1)
    else:
        light = 1.0 + 0.62 * (lambert - _LIGHT[2]) - 0.06 * p[1]
    rgb = rgb * light[..., None]
    gloss = np.clip(lambert, 0, 1) ** 24 if scene.shape in ("ball", "ring") else 0.5 * np.clip(lambert, 0, 1) ** 20
    rgb = np.clip(rgb + (95 * gloss)[..., None], 0, 255)
    box += alpha[..., None] * (rgb - box)
    return ys, xs, alpha


def render_objects(
    scene: Scene, frames: int = FRAMES, size_px: int = SIZE_PX, only: Sequence[int] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a scene: frames (t, h, w, 3) uint8 and the alpha of each of `scene.objects` (n, t, h, w) uint8 in 0..255.

    `size_px` scales the picture; positions stay in 64ths of its side. `only` these of the frames are drawn, in rising
    order.
    """
    shown = range(frames) if only is None else only
    stage = paint_background(scene, size_px)
    poses = [(o, path(o, frames)) for o in scene.objects]
    clip = np.empty((len(shown), size_px, size_px, 3), np.uint8)
    masks = np.zeros((len(poses), len(shown), size_px, size_px), np.uint8)
    for i, at in enumerate(shown):
        if i and all(o.motion == "still" for o, _ in poses):
            clip[i], masks[:, i] = clip[0], masks[:, 0]
            continue
        canvas = stage.copy()
        for mask, (one, pose) in zip(masks, poses, strict=True):
            drawn = _draw(canvas, one, pose.centre_px[at], float(pose.radius_px[at]), float(pose.angle_rad[at]))
            if drawn is not None:
                ys, xs, alpha = drawn
                mask[i, ys, xs] = alpha * 255
        clip[i] = np.clip(canvas + 0.5, 0, 255)
    return clip, masks


def render(
    scene: Scene, frames: int = FRAMES, size_px: int = SIZE_PX, only: Sequence[int] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`render_objects` with one alpha (t, h, w) for whatever is not background."""
    clip, masks = render_objects(scene, frames, size_px, only)
    return clip, masks.max(0)
