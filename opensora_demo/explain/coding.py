"""What the codec keeps of a clip, stage by stage, and which latents a change of the clip reaches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from opensora_demo.codecs.base import Codec
from opensora_demo.frames import to_frames
from opensora_demo.metrics import psnr_of
from opensora_demo.preview import fit_matrix, latent_to_rgb
from opensora_demo.request.video import Frames

MOST_CHANGES = 4
SMALL_CLIP = 4_000_000  # numbers of a clip up to which so many changed ones are coded; of a larger one only one is


@dataclass(frozen=True, slots=True)
class Stage:
    """The clip at one stage: (c, t, h, w) of its values, and a picture (t, h, w, 3) of it."""

    name: str
    size: tuple[int, int, int, int]
    picture: Frames


@dataclass(frozen=True, slots=True)
class Change:
    """The clip is turned to its negative from `frame` on: root mean square change of each latent frame (t'), and a
    picture of every stage behind the clip, by its name, as `Stage.picture`."""

    frame: int
    latents: tuple[float, ...]
    pictures: Mapping[str, Frames]


@dataclass(frozen=True, slots=True)
class Coding:
    """`spans` are the frames [first, end) that each latent frame stands for; `psnr` in dB is of the decoded clip
    against the clip; `causal` says whether the codec is made so. `changes` is empty for a picture."""

    stages: tuple[Stage, ...]
    spans: tuple[tuple[int, int], ...]
    changes: tuple[Change, ...]
    psnr: float
    causal: bool


def psnr(video: Tensor, other: Tensor) -> float:
    """Of clips in [-1, 1], dB, at most 99."""
    return min(psnr_of(float((video.clamp(-1, 1) - other.clamp(-1, 1)).square().mean()), span=2), 99.0)


def _size(x: Tensor) -> tuple[int, int, int, int]:
    return (x.shape[1], x.shape[2], x.shape[3], x.shape[4])


def code(codec: Codec, video: Tensor, matrix: Tensor) -> Iterator[Coding | None]:
    """Code a clip (1, 3, t, h, w) in [-1, 1] and its changed versions; None after each part of the work, the result
    last. `matrix` shows latents, as `ModelBundle.preview_matrix`."""
    frames, height_px, width_px = video.shape[2:]
    stages = [Stage("clip", _size(video), to_frames(video[0]))]
    matrices = {"latents": matrix}
    for name, middle in codec.stages(video):
        matrices[name] = fit_matrix(middle.float().cpu(), video.float().cpu()).to(middle.device)
        stages.append(Stage(name, _size(middle), _picture(middle, matrices[name])))
        yield None
    latents = codec.encode(video)
    decoded = codec.decode(latents, frames)
    stages.append(Stage("latents", _size(latents), _picture(latents, matrix)))
    stages.append(Stage("decoded", _size(decoded), to_frames(decoded[0])))
    yield None

    spans = codec.frame_spans(frames, height_px, width_px)
    firsts = sorted({first for first, _ in spans if first > 0})
    most = MOST_CHANGES if video.numel() <= SMALL_CLIP else 1
    if len(firsts) > most:
        firsts = [firsts[round((i + 1) * len(firsts) / (most + 1))] for i in range(most)]
    changes = []
    for first in firsts:
        changed = torch.cat([video[:, :, :first], -video[:, :, first:]], dim=2)
        pictures = {name: _picture(middle, matrices[name]) for name, middle in codec.stages(changed)}
        moved = codec.encode(changed)
        pictures["latents"] = _picture(moved, matrix)
        pictures["decoded"] = to_frames(codec.decode(moved, frames)[0])
        apart = (moved - latents)[0].float().square().mean((0, 2, 3)).sqrt()
        changes.append(Change(first, tuple(apart.tolist()), pictures))
        yield None
    yield Coding(tuple(stages), spans, tuple(changes), psnr(video.float(), decoded.float()), codec.causal)


def _picture(latents: Tensor, matrix: Tensor) -> Frames:
    """The first of (b, c, t, h, w) in colours."""
    return latent_to_rgb(latents[0].float(), matrix)
