"""Reads a clip: which shape, colour, motion and background its pixels show, and where the object is.

The reader sees pixels only, never a prompt. A small U-Net finds the object in every frame (trained on the renderer's
own masks); what lies under the mask says shape and colour, what lies outside says background, and the mask's track
over time (position, size, second moments, appearance) says motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.training.worlds import BACKGROUNDS, COLOURS, FRAMES, MOTIONS, SHAPES
from opensora_demo.types import Frames
from opensora_demo.weights import ASSETS, load_module

READER_FILE = ASSETS / "nano" / "reader.safetensors"
SIZE_PX = 64
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "motion": MOTIONS,
    "background": BACKGROUNDS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one clip shows. `centre_px` (t, 2) in 64ths of the side, NaN where no object is seen; `area` (t) share."""

    shape: str
    colour: str
    motion: str
    background: str
    confidence: dict[str, float]
    centre_px: np.ndarray
    area: np.ndarray

    def matches(self, shape: str, colour: str, motion: str, background: str) -> dict[str, bool]:
        return {
            "shape": self.shape == shape,
            "colour": self.colour == colour,
            "motion": self.motion == motion,
            "background": self.background == background,
        }


@dataclass(frozen=True, slots=True)
class ReaderOutput:
    """Logits of a batch: mask (b, t, 32, 32) and one (b, classes) for each attribute; centre (b, t, 2) and area (b, t)
    of the mask, in 0..1 of the side."""

    mask: Tensor
    logits: dict[str, Tensor]
    centre: Tensor
    area: Tensor


class _Stage(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.norm1 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm1(self.conv1(x)))
        return x + F.silu(self.norm2(self.conv2(x)))


class Reader(nn.Module):
    """Clips (b, 3, t, 64, 64) in [-1, 1] -> ReaderOutput."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = _Stage(3, 32, 2)  # 32 x 32
        self.down2 = _Stage(32, 48, 2)  # 16 x 16
        self.down3 = _Stage(48, 96, 2)  # 8 x 8
        self.up2 = _Stage(96 + 48, 48, 1)
        self.up1 = _Stage(48 + 32, 32, 1)
        self.mask = nn.Conv2d(32, 1, 1)
        seen = 32 + 96
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, 96), nn.SiLU(), nn.Linear(96, len(ATTRIBUTES[name])))
                for name, width in (("shape", seen), ("colour", seen), ("background", 96))
            }
        )
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

    def forward(self, video: Tensor) -> ReaderOutput:
        b = video.shape[0]
        x = rearrange(video, "b c t h w -> (b t) c h w")
        f1 = self.down1(x)
        f2 = self.down2(f1)
        f3 = self.down3(f2)
        u2 = self.up2(torch.cat([F.interpolate(f3, scale_factor=2.0), f2], 1))
        u1 = self.up1(torch.cat([F.interpolate(u2, scale_factor=2.0), f1], 1))
        logits = self.mask(u1).float()  # (b t) 1 32 32
        mask = logits.sigmoid()

        area = mask.mean((1, 2, 3))  # (b t)
        total = mask.sum((2, 3)) + 1e-3
        axis = (torch.arange(mask.shape[-1], device=mask.device) + 0.5) / mask.shape[-1]
        mx, my = mask.sum(2)[:, 0] / total, mask.sum(3)[:, 0] / total  # marginals (b t) 32
        cx, cy = (mx * axis).sum(1), (my * axis).sum(1)
        xx = (mx * (axis - cx[:, None]) ** 2).sum(1)
        yy = (my * (axis - cy[:, None]) ** 2).sum(1)
        dx, dy = axis[None, None] - cx[:, None, None], axis[None, :, None] - cy[:, None, None]
        xy = (mask[:, 0] * dx * dy).sum((1, 2)) / total[:, 0]
        pose = torch.stack([cx * 4 - 2, cy * 4 - 2, 8 * area.sqrt(), 40 * xx, 40 * yy, 40 * xy], 1)  # (b t) 6

        coarse = F.adaptive_avg_pool2d(mask, f3.shape[-1])
        under = (mask * u1.float()).sum((2, 3)) / total
        around = (coarse * f3.float()).sum((2, 3)) / (coarse.sum((2, 3)) + 1e-3)
        seen = rearrange(torch.cat([under, around], 1), "(b t) c -> b t c", b=b)
        weight = rearrange(area, "(b t) -> b t 1", b=b)
        visible = (seen * weight).sum(1) / (weight.sum(1) + 1e-4)
        rest = 1 - coarse
        stage = rearrange((rest * f3.float()).sum((2, 3)) / rest.sum((2, 3)), "(b t) c -> b t c", b=b).mean(1)

        pose = rearrange(pose, "(b t) k -> b k t", b=b)
        change = F.pad(8 * (pose[:, :, 1:] - pose[:, :, :-1]), (1, 0))
        look = rearrange(self.appearance(seen), "b t k -> b k t")
        track = self.track(torch.cat([pose, change, look], 1))
        summary = torch.cat([track.mean(2), track.amax(2)], 1)
        answers = {
            "shape": self.heads["shape"](visible),
            "colour": self.heads["colour"](visible),
            "background": self.heads["background"](stage),
            "motion": self.motion(summary),
        }
        centre = rearrange(torch.stack([cx, cy], 1), "(b t) k -> b t k", b=b)
        return ReaderOutput(
            rearrange(logits[:, 0], "(b t) h w -> b t h w", b=b), answers, centre, rearrange(area, "(b t) -> b t", b=b)
        )


def load_reader(file: Path = READER_FILE) -> Reader:
    return load_module(Reader, [file], "reader")


_SEEN_AREA = 0.004  # of the frame: about 16 of 4096 pixels


@torch.inference_mode()
def read_clips(reader: Reader, clips: list[Frames], batch: int = 16) -> list[Reading]:
    """Read clips (17, 64, 64, 3) uint8. Raises ValueError for another size: the reader was trained on this one."""
    readings: list[Reading] = []
    for clip in clips:
        if clip.shape != (FRAMES, SIZE_PX, SIZE_PX, 3):
            raise ValueError(f"the reader reads {FRAMES} frames of {SIZE_PX} x {SIZE_PX}, not {clip.shape}")
    for at in range(0, len(clips), batch):
        video = torch.from_numpy(np.stack(clips[at : at + batch])).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        out = reader(video)
        for i in range(len(video)):
            said: dict[str, str] = {}
            confidence: dict[str, float] = {}
            for name, values in ATTRIBUTES.items():
                p = out.logits[name][i].softmax(-1)
                said[name], confidence[name] = values[int(p.argmax())], float(p.max())
            area = out.area[i].numpy()
            centre = np.where(area[:, None] > _SEEN_AREA, out.centre[i].numpy() * SIZE_PX, np.nan)
            readings.append(Reading(**said, confidence=confidence, centre_px=centre, area=area))
    return readings
