"""Reads a clip: which shapes, colours, motions and background its pixels show, and where the objects are.

The reader sees pixels only, never a prompt. A small U-Net finds the objects in every frame (trained on the renderer's
own masks); what lies under the mask says shape and colour, what lies outside says background, and the mask's track
over time (position, size, second moments, appearance) says motion. Two objects are read one half of the frame at a
time, after the layout of the mask has said which halves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from numpy.typing import NDArray
from torch import Tensor, nn

from opensora_demo.frames import to_video
from opensora_demo.request.video import Frames
from opensora_demo.toy.worlds import ARRANGEMENTS, BACKGROUNDS, COLOURS, FRAMES, MOTIONS, SHAPES, Scene
from opensora_demo.weights.reading import load_module
from opensora_demo.weights.store import ASSETS

READER_FILE = ASSETS / "nano" / "reader.safetensors"
SIZE_PX = 64
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "motion": MOTIONS,
    "background": BACKGROUNDS,
}
OF_OBJECTS = ("shape", "colour", "motion")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One object of a clip. `centre_px` (t, 2) in 64ths of the side, NaN where it is not seen; `area` (t) share.

    `confidence` is of what is said of it; `probabilities` of every shape, colour and motion, adding up to 1 for each.
    """

    shape: str
    colour: str
    motion: str
    confidence: dict[str, float]
    centre_px: np.ndarray
    area: np.ndarray
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one clip shows; of two objects, the left or upper one first. `probabilities` are of every background."""

    background: str
    arrangement: str
    objects: tuple[Detection, ...]
    probabilities: dict[str, float] = field(default_factory=dict)

    def matches(self, scene: Scene) -> dict[str, float]:
        """Share of the scene's objects whose shape, colour and motion are right; background and arrangement 0 or 1.

        An object that is not seen is wrong in everything.
        """
        shown = dict(zip(range(2), self.objects, strict=False))
        wanted = scene.objects
        right = {
            name: sum(i in shown and getattr(shown[i], name) == getattr(o, name) for i, o in enumerate(wanted))
            / len(wanted)
            for name in OF_OBJECTS
        }
        return {
            **right,
            "background": float(self.background == scene.background),
            "arrangement": float(self.arrangement == scene.arrangement),
        }


@dataclass(frozen=True, slots=True)
class ReaderOutput:
    """Logits of a batch: mask of whatever is not background (b, t, 32, 32), arrangement (b, 3), background (b, 9);
    shape, colour and motion (b, 2, classes) for the one object or each of two, with centre (b, 2, t, 2) and area
    (b, 2, t) in 0..1 of the side."""

    mask: Tensor
    arrangement: Tensor
    background: Tensor
    objects: dict[str, Tensor]
    centre: Tensor
    area: Tensor


class _ConvBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.norm1 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm1(self.conv1(x)))
        return x + F.silu(self.norm2(self.conv2(x)))


def halves(arrangement: Tensor, size: int) -> Tensor:
    """Which pixels belong to which object: (b, 2, size, size) of 0 and 1 for arrangement (b)."""
    near = (torch.arange(size, device=arrangement.device) < size / 2).float()
    whole = torch.ones(size, size, device=arrangement.device)
    table = torch.stack(
        [
            torch.stack([whole, 0 * whole]),
            torch.stack([whole * near, whole * (1 - near)]),  # columns
            torch.stack([whole * near[:, None], whole * (1 - near)[:, None]]),  # rows
        ]
    )
    return table[arrangement]


def divided(profile: Tensor) -> Tensor:
    """Is the mask on both sides of the middle line and not on it? Two numbers (n, 2) of its profile (n, 32)."""
    share = profile / (profile.sum(1, keepdim=True) + 1e-3)
    middle = share.shape[1] // 2
    smaller = torch.minimum(share[:, :middle].sum(1), share[:, middle:].sum(1))
    return torch.stack([4 * smaller, 4 * share[:, middle - 2 : middle + 2].sum(1)], 1)


class Reader(nn.Module):
    """Clips (b, 3, t, 64, 64) in [-1, 1] -> ReaderOutput."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = _ConvBlock(3, 32, 2)  # 32 x 32
        self.down2 = _ConvBlock(32, 48, 2)  # 16 x 16
        self.down3 = _ConvBlock(48, 96, 2)  # 8 x 8
        self.up2 = _ConvBlock(96 + 48, 48, 1)
        self.up1 = _ConvBlock(48 + 32, 32, 1)
        self.mask = nn.Conv2d(32, 1, 1)
        seen = 32 + 96
        self.colour = nn.Sequential(nn.Linear(seen, 96), nn.SiLU(), nn.Linear(96, len(COLOURS)))
        self.background = nn.Sequential(nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, len(BACKGROUNDS)))
        self.layout = nn.Sequential(nn.Linear(64 + 4, 96), nn.SiLU(), nn.Linear(96, 48), nn.SiLU())
        self.arrangement = nn.Linear(2 * 48, len(ARRANGEMENTS))
        self.figure = nn.Sequential(nn.Linear(seen + 3, 128), nn.SiLU(), nn.Linear(128, 96), nn.SiLU())
        self.shape = nn.Linear(2 * 96, len(SHAPES))
        self.appearance = nn.Linear(seen, 16)
        self.track = nn.Sequential(
            nn.Conv1d(6 + 6 + 16, 64, 5, padding=2),
            nn.SiLU(),
            nn.Conv1d(64, 64, 5, padding=2),
            nn.SiLU(),
            nn.Conv1d(64, 64, 5, padding=2),
            nn.SiLU(),
        )
        self.motion = nn.Sequential(nn.Linear(128, 64), nn.SiLU(), nn.Linear(64, len(MOTIONS)))

    def forward(self, video: Tensor, arrangement: Tensor | None = None) -> ReaderOutput:
        """`arrangement` (b) says how the frame is divided; without it the reader goes by its own answer."""
        b, t = video.shape[0], video.shape[2]
        x = rearrange(video, "b c t h w -> (b t) c h w")
        f1 = self.down1(x)
        f2 = self.down2(f1)
        f3 = self.down3(f2)
        u2 = self.up2(torch.cat([F.interpolate(f3, scale_factor=2.0), f2], 1))
        u1 = self.up1(torch.cat([F.interpolate(u2, scale_factor=2.0), f1], 1))
        logits = self.mask(u1).float()  # (b t) 1 32 32
        mask = logits.sigmoid()
        coarse = F.adaptive_avg_pool2d(mask, f3.shape[-1])  # (b t) 1 8 8

        layout = self.layout(torch.cat([coarse.flatten(1), divided(mask.sum(2)[:, 0]), divided(mask.sum(3)[:, 0])], 1))
        layout = rearrange(layout, "(b t) c -> b t c", b=b)
        arranged = self.arrangement(torch.cat([layout.mean(1), layout.amax(1)], 1))  # (b, 3)
        parts = halves(arranged.argmax(-1) if arrangement is None else arrangement, mask.shape[-1])
        mine = mask * repeat(parts, "b k h w -> (b t) k h w", t=t)  # (b t) 2 32 32, one mask for each object

        area = mine.mean((2, 3))  # (b t) 2
        side = (area + 1e-6).sqrt()  # the root's slope is infinite at 0, where a half of the frame is nobody's
        total = mine.sum((2, 3)) + 1e-3
        axis = (torch.arange(mask.shape[-1], device=mask.device) + 0.5) / mask.shape[-1]
        mx, my = mine.sum(2) / total[..., None], mine.sum(3) / total[..., None]  # marginals (b t) 2 32
        cx, cy = (mx * axis).sum(-1), (my * axis).sum(-1)
        dx, dy = axis - cx[..., None], axis - cy[..., None]
        xx, yy = (mx * dx**2).sum(-1), (my * dy**2).sum(-1)
        xy = torch.einsum("nkhw,nkw,nkh->nk", mine, dx, dy) / total
        pose = torch.stack([cx * 4 - 2, cy * 4 - 2, 8 * side, 40 * xx, 40 * yy, 40 * xy], -1)  # (b t) 2 6
        spread, stretch = xx + yy, ((xx - yy) ** 2 + 4 * xy**2 + 1e-12).sqrt()  # neither turns with the object
        form = torch.stack([5 * spread / (area + 1e-3), 5 * stretch / (area + 1e-3), 8 * side], -1)

        under = torch.einsum("nkhw,nchw->nkc", mine, u1.float()) / total[..., None]
        coarse_mine = F.adaptive_avg_pool2d(mine, f3.shape[-1])
        around = torch.einsum("nkhw,nchw->nkc", coarse_mine, f3.float()) / (coarse_mine.sum((2, 3)) + 1e-3).unsqueeze(
            -1
        )
        seen = rearrange(torch.cat([under, around], -1), "(b t) k c -> b k t c", b=b)
        weight = rearrange(area, "(b t) k -> b k t 1", b=b)
        weight = weight / (weight.sum(2, keepdim=True) + 1e-4)
        figure = self.figure(torch.cat([seen, rearrange(form, "(b t) k c -> b k t c", b=b)], -1))
        rest = 1 - coarse
        stage = rearrange((rest * f3.float()).sum((2, 3)) / rest.sum((2, 3)), "(b t) c -> b t c", b=b).mean(1)

        poses = rearrange(pose, "(b t) k c -> (b k) c t", b=b)
        change = F.pad(8 * (poses[:, :, 1:] - poses[:, :, :-1]), (1, 0))
        look = rearrange(self.appearance(seen), "b k t c -> (b k) c t")
        track = self.track(torch.cat([poses, change, look], 1))
        summary = torch.cat([track.mean(2), track.amax(2)], 1)
        return ReaderOutput(
            mask=rearrange(logits[:, 0], "(b t) h w -> b t h w", b=b),
            arrangement=arranged,
            background=self.background(stage),
            objects={
                "shape": self.shape(torch.cat([(figure * weight).sum(2), figure.amax(2)], -1)),
                "colour": self.colour((seen * weight).sum(2)),
                "motion": rearrange(self.motion(summary), "(b k) c -> b k c", b=b),
            },
            centre=rearrange(torch.stack([cx, cy], -1), "(b t) k c -> b k t c", b=b),
            area=rearrange(area, "(b t) k -> b k t", b=b),
        )


def load_reader(file: Path = READER_FILE) -> Reader:
    return load_module(Reader, [file], "reader")


_SEEN_AREA = 0.004  # of the frame: about 16 of 4096 pixels
MIN_FRAMES = 8  # fewer show too little of a motion


def can_read(clip: Frames) -> bool:
    """Whether the reader reads clips (t, h, w, 3) like this: 8 frames or more, squares of a multiple of 64 px."""
    frames, height_px, width_px = clip.shape[:3]
    return frames >= MIN_FRAMES and height_px == width_px > 0 and height_px % SIZE_PX == 0


def at_reading_size(clip: Frames) -> Frames:
    """A square clip (t, h, h, 3) uint8 as the reader sees it, (t, 64, 64, 3): area averages where it is larger.

    Raises ValueError for one that it cannot read.
    """
    if not can_read(clip):
        raise ValueError(
            f"the reader reads {FRAMES} frames, or another number from {MIN_FRAMES} up, of squares whose side is a "
            f"multiple of {SIZE_PX}, not {clip.shape}"
        )
    if clip.shape[1] == SIZE_PX:
        return clip
    means = reduce(clip.astype(np.float32), "t (h i) (w j) c -> t h w c", "mean", h=SIZE_PX, w=SIZE_PX)
    return (means + 0.5).astype(np.uint8)


def _outputs(reader: Reader, clips: Sequence[Frames], batch: int) -> Iterator[tuple[ReaderOutput, list[int]]]:
    """The network's answers, a batch of clips of one length at a time, and which of `clips` they belong to."""
    shrunk = [at_reading_size(clip) for clip in clips]
    for frames in sorted({len(clip) for clip in shrunk}):
        alike = [i for i, clip in enumerate(shrunk) if len(clip) == frames]
        for at in range(0, len(alike), batch):
            chosen = alike[at : at + batch]
            yield reader(to_video(np.stack([shrunk[i] for i in chosen]))), chosen


@torch.inference_mode()
def read_clips(reader: Reader, clips: Sequence[Frames], batch: int = 16) -> list[Reading]:
    """Read clips (t, h, h, 3) uint8 of 8 frames or more, each side a multiple of 64 (larger ones are averaged down).

    The reader was trained on 17 frames. Raises ValueError for another size.
    """
    readings: dict[int, Reading] = {}
    for out, chosen in _outputs(reader, clips, batch):
        for i, which in enumerate(chosen):
            arrangement = ARRANGEMENTS[int(out.arrangement[i].argmax())]
            readings[which] = Reading(
                background=BACKGROUNDS[int(out.background[i].argmax())],
                arrangement=arrangement,
                objects=tuple(_detection(out, i, k) for k in range(1 if arrangement == "alone" else 2)),
                probabilities=_probabilities("background", out.background[i]),
            )
    return [readings[i] for i in range(len(clips))]


@torch.inference_mode()
def find_objects(reader: Reader, clips: Sequence[Frames], batch: int = 16) -> list[NDArray[np.float32]]:
    """How likely each pixel of a clip is not background: (t, 64, 64) in 0..1, for clips as `read_clips` takes them."""
    masks: dict[int, NDArray[np.float32]] = {}
    for out, chosen in _outputs(reader, clips, batch):
        likely = F.interpolate(out.mask.sigmoid(), size=(SIZE_PX, SIZE_PX), mode="bilinear")
        masks |= {which: likely[i].numpy() for i, which in enumerate(chosen)}
    return [masks[i] for i in range(len(clips))]


def _probabilities(name: str, logits: Tensor) -> dict[str, float]:
    return dict(zip(ATTRIBUTES[name], logits.float().softmax(-1).tolist(), strict=True))


def _detection(out: ReaderOutput, i: int, k: int) -> Detection:
    probabilities = {name: _probabilities(name, out.objects[name][i, k]) for name in OF_OBJECTS}
    likeliest = {name: max(of, key=of.__getitem__) for name, of in probabilities.items()}
    confidence = {name: probabilities[name][value] for name, value in likeliest.items()}
    area = out.area[i, k].numpy()
    centre = np.where(area[:, None] > _SEEN_AREA, out.centre[i, k].numpy() * SIZE_PX, np.nan)
    return Detection(**likeliest, confidence=confidence, centre_px=centre, area=area, probabilities=probabilities)


def load_partial(reader: Reader, state: dict[str, Tensor]) -> None:
    """Take what fits from an older reader's weights."""
    renamed = {name.removeprefix("heads."): tensor for name, tensor in state.items()}
    own = reader.state_dict()
    fits = {k: v for k, v in renamed.items() if k in own and own[k].shape == v.shape}
    reader.load_state_dict(fits, strict=False)
