"""Latents as pictures: by a small decoder or a linear map from channels to RGB, and within a budget of time.

A step of a run can be seen as noise (the latent before it), as the guess (the clean latent it speaks of), and as the
latent itself (the guess by the linear map, a square for each position).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opensora_demo.request.events import Shown, StepInspection
from opensora_demo.request.video import Frames
from opensora_demo.sampling.step import Step

LOSSLESS_PX = 256  # a latent of at most this many positions is shown as it is, one pixel for each
PICTURE_PX = 2048  # of a larger picture in a look
TINY_PX = 16384  # of a small decoder's picture: several are sent at every step
SHARE = 0.05  # of a run's time that its pictures may take
CHANNELS_PX = 8192  # of all channels of one latent frame together
FULL_CELLS = 1000  # steps times latent frames that may have pictures of full size; a longer run takes smaller ones


def latent_to_rgb(latent: Tensor, matrix: Tensor) -> Frames:
    """latent (c, t, h, w) of unit variance, matrix (c + 1, 3) whose last row is the bias -> (t, h, w, 3) uint8."""
    weight, bias = matrix[:-1].to(latent), matrix[-1].to(latent)
    rgb = torch.einsum("cthw,cr->thwr", latent, weight) + bias  # in [-1, 1]
    return ((rgb.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8).numpy()


class PictureDecoder(Protocol):
    """A small network that shows latents (b, c, t, h, w) of unit variance, noisy ones too, as pictures
    (b, t, 3, h', w') in [0, 1], one for each latent frame."""

    def __call__(self, latents: Tensor, /) -> Tensor: ...


def tiny_pictures(latents: Tensor, decoder: PictureDecoder) -> list[Frames]:
    """latents (b, c, t, h, w) -> for each of them (t, h', w', 3) uint8, at most TINY_PX a picture."""
    pictures = decoder(latents).float()
    height, width = pictures.shape[-2:]
    scale = min(1.0, math.sqrt(TINY_PX / (height * width)))
    if scale < 1:
        size = (round(height * scale), round(width * scale))
        flat = torch.nn.functional.interpolate(pictures.flatten(0, 1), size=size, mode="area")
        pictures = flat.unflatten(0, pictures.shape[:2])
    return list((pictures * 255).round().movedim(2, -1).to("cpu", torch.uint8).numpy())


class Lazy(Sequence[Frames]):
    """Pictures that are made when somebody first looks at one of them, and what they are made of is held until then."""

    def __init__(self, count: int, make: Callable[[], Sequence[Frames]]) -> None:
        self._count = count
        self._make: Callable[[], Sequence[Frames]] | None = make
        self._made: Sequence[Frames] = ()

    @property
    def made(self) -> bool:
        """Somebody has looked at one."""
        return self._make is None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Frames: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Frames]: ...
    def __getitem__(self, index: int | slice) -> Frames | Sequence[Frames]:
        if self._make is not None:
            self._made, self._make = self._make(), None
        return self._made[index]


T = TypeVar("T")


class Budget:
    """How often a run that goes on may be looked at: pictures take at most `share` of its time, so where they are slow
    or its steps quick some are left out. The first is always made."""

    def __init__(self, share: float = SHARE, clock: Callable[[], float] = time.perf_counter) -> None:
        self._share = share
        self._clock = clock
        self._spent_s = self._last_s = 0.0

    def allows(self, elapsed_s: float) -> bool:
        """Whether a picture is due, `elapsed_s` after the run began."""
        return not self._spent_s or self._spent_s + self._last_s <= self._share * elapsed_s

    def take(self, make: Callable[[], T]) -> T:
        """Make one, and remember how long it took."""
        began = self._clock()
        made = make()
        self._last_s = self._clock() - began
        self._spent_s += self._last_s
        return made


_HEAT = np.array([(0, 0, 0), (58, 15, 110), (170, 42, 96), (242, 122, 44), (252, 240, 180)], np.float32)
_HEAT_TABLE = np.stack([np.interp(np.linspace(0, 4, 256), range(5), stops) for stops in _HEAT.T], 1).round()
_HEAT_TABLE = _HEAT_TABLE.astype(np.uint8)


def heat(values: NDArray[np.float32], peak: float) -> Frames:
    """values (t, h, w) from 0 to `peak` -> (t, h, w, 3) from black over red to white at the peak."""
    return _HEAT_TABLE.take(_levels(values * (255 / max(peak, 1e-12)) + 0.5), axis=0)


def _levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(values, 0, 255).astype(np.uint8)


def picture_size(height: int, width: int, area_px: int) -> tuple[int, int]:
    """(height, width) of a picture of a latent: its own where it is tiny, otherwise at most `area_px` with whole JPEG
    blocks as sides (one at least), so that pictures side by side in one file do not bleed into each other."""
    if height * width <= min(area_px, LOSSLESS_PX):
        return height, width
    scale = min(1.0, math.sqrt(area_px / (height * width)))
    return max(int(height * scale / 8), 1) * 8, max(int(width * scale / 8), 1) * 8


def look_sizes(shape: Sequence[int], steps: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the pictures and of a single channel's in looks at a latent of `shape` (c, t, h, w): so large
    that a step and latent frame takes at most 20 kB as `ui.scope` encodes it, and a whole run about 20 MB."""
    channels, frames, height, width = shape
    room = min(1.0, FULL_CELLS / (steps * frames))
    picture = picture_size(height, width, int(PICTURE_PX * room))
    return picture, picture_size(height, width, int(CHANNELS_PX * room / channels))


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., t, h, w) averaged to another height and width."""
    if values.shape[-2:] == size:
        return values
    flat = values.reshape(-1, *values.shape[-3:])
    return torch.nn.functional.adaptive_avg_pool2d(flat, size).reshape(*values.shape[:-2], *size)


def _dots(*pairs: tuple[Tensor, Tensor]) -> list[float]:
    """Of vectors, in one transfer."""
    if not pairs:
        return []
    return [float(d) for d in torch.stack([torch.dot(a, b) for a, b in pairs]).tolist()]


def _parts_of(step: Step) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Of a step's first clip: x before it and the x0 it speaks of (c, t, h, w), which frames (t) were not kept where
    some were, and what the prompt's and the null branch predicted, None where one was not evaluated."""
    a, b = step.to_x0
    start, x0 = step.start[0].float(), step.x0[0].float()
    branches = [None if p is None else p[0].float() for p in step.prediction.branches[:2]]
    made = None if step.x_mask is None else step.x_mask[0]
    if made is not None and not made.all():  # of a kept frame a prediction says nothing: it is what it is
        branches = [p if p is None else torch.where(made[:, None, None], p, (x0 - a * start) / b) for p in branches]
    prompt, null = (*branches, None, None)[:2]
    return start, x0, made, prompt, null


def _latents(step: Step, start: Tensor, x0: Tensor, prompt: Tensor | None, null: Tensor | None) -> dict[Shown, Tensor]:
    """Those that can be seen, by what they are."""
    a, b = step.to_x0
    scaled = start if a == 1 else a * start
    shown: dict[Shown, Tensor] = {"noisy": start, "estimate": x0}
    if prompt is not None:
        shown["prompt"] = torch.add(scaled, prompt, alpha=b)
    if null is not None:
        shown["null"] = torch.add(scaled, null, alpha=b)
    return shown


@torch.inference_mode()
def decode_step(step: Step, pictures: Callable[[Tensor], Sequence[Frames]]) -> dict[Shown, Frames]:
    """What a step was made of, decoded: pictures (t', h', w', 3) of the first clip's noisy latent, of the estimate, and
    of the x0 that each branch speaks of. `pictures` is `ModelBundle.pictures`."""
    start, x0, _, prompt, null = _parts_of(step)
    latents = _latents(step, start, x0, prompt, null)
    return dict(zip(latents, pictures(torch.stack(list(latents.values()))), strict=True))


@torch.inference_mode()
@np.errstate(invalid="ignore")  # a run that diverges
def inspect_step(step: Step, matrix: Tensor) -> StepInspection:
    """What the first clip's step was made of, in a few small transfers from the device.

    Between two steps of a network little of this is in the processor's caches, so that on a small latent the number of
    operations counts and not their size; several looks in a row cost less than one after each step, and NumPy less
    than torch, whose products and sums wake a second thread. `benchmarks.scope` watches it.
    """
    start, x0, made, prompt, null = _parts_of(step)
    known = [p for p in (prompt, null) if p is not None]
    b = step.to_x0[1]

    size, channel_size = look_sizes(start.shape, step.total)
    shown = _latents(step, start, x0, prompt, null)
    latents = torch.stack([_resized(x, size) for x in shown.values()]).cpu().numpy()
    colours = matrix.cpu().numpy() * np.float32(127.5)
    rgb = np.matmul(colours[:-1].T, latents.reshape(*latents.shape[:2], -1)) + (colours[-1, :, None] + 128)
    pictures = _levels(rgb).reshape(len(rgb), 3, *latents.shape[2:]).transpose(0, 2, 3, 4, 1)
    channels = latents[1] if channel_size == size else _resized(x0, channel_size).cpu().numpy()

    def vector(p: Tensor) -> Tensor:
        return (p if made is None or not made.any() else p[:, made]).reshape(-1)

    vectors = [vector(p) for p in known]
    norms = [math.sqrt(d / len(v)) for d, v in zip(_dots(*((v, v) for v in vectors)), vectors, strict=True)]
    difference, peak, difference_norm, cosine, applied = None, None, None, None, None
    if prompt is not None and null is not None:
        apart = prompt - null
        squares = (apart * apart).mean(0)  # (t, h, w)
        largest = math.sqrt(float(squares.max()))
        difference, peak = heat(np.sqrt(_resized(squares, size).cpu().numpy()), largest), largest * abs(b)
        c, u = vectors
        d, moved = c - u, vector(step.prediction.guided[0, : len(apart)]) - u
        squared, pulled, between = _dots((d, d), (d, moved), (c, u))
        difference_norm = math.sqrt(squared / len(d))
        cosine = between / max(norms[0] * norms[1] * len(d), 1e-12)
        applied = pulled / squared if squared > 0 else None
    return StepInspection(
        size=(start.shape[-2], start.shape[-1]),
        noisy=pictures[0],
        estimate=pictures[1],
        prompt=None if prompt is None else pictures[2],
        null=None if null is None else pictures[-1],
        difference=difference,
        peak=peak,
        channels=_levels(channels * np.float32(255 / 6) + 128),
        prompt_norm=None if prompt is None else norms[0],
        null_norm=None if null is None else norms[-1],
        difference_norm=difference_norm,
        cosine=cosine,
        applied=applied,
    )


def first_channels(channels: int) -> Tensor:
    """The matrix of a model that has none fitted: its first three channels as red, green and blue."""
    matrix = torch.zeros(channels + 1, 3)
    matrix[:3] = 0.5 * torch.eye(3)
    return matrix


def shown_frames(frames: int, latent_frames: int) -> NDArray[np.intp]:
    """Which frame of a clip each of its latent frames is shown as, in a preview."""
    return np.linspace(0, frames - 1, latent_frames).round().astype(np.intp)


def as_latents(video: Tensor, size: Sequence[int]) -> Tensor:
    """video (b, 3, t, h, w) shrunk to the `size` (t', h', w') of its latents.

    Latent frame 0 stands for the first frame, latent frame i for the frames up to 4 i (a causal codec padded in front).
    """
    at = shown_frames(video.shape[2], size[0])
    return torch.nn.functional.adaptive_avg_pool3d(video[:, :, at], (size[0], size[1], size[2]))


def fit_matrix(latents: Tensor, video: Tensor) -> Tensor:
    """Least squares (c + 1, 3) from latents (b, c, t', h', w') to video (b, 3, t, h, w) shrunk to their size."""
    x = latents.movedim(1, -1).reshape(-1, latents.shape[1])
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    return torch.linalg.lstsq(x, as_latents(video, latents.shape[2:]).movedim(1, -1).reshape(-1, 3)).solution
