"""What the codec keeps of a clip, stage by stage, and which latents a change of the clip reaches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from opensora_demo.codecs.base import Codec
from opensora_demo.codecs.dc_ae import DcAe
from opensora_demo.codecs.hunyuan import HunyuanVAE
from opensora_demo.codecs.vae_v13 import VaeV13
from opensora_demo.codecs.video_vae import VideoVAE
from opensora_demo.preview import fit_matrix, latent_to_rgb
from opensora_demo.types import Frames

MOST_CHANGES = 4


@dataclass(frozen=True, slots=True)
class Stage:
    """The clip at one stage: (c, t, h, w) of its values, and a picture (t, h, w, 3) of it."""

    name: str
    size: tuple[int, int, int, int]
    picture: Frames


@dataclass(frozen=True, slots=True)
class Change:
    """The clip is turned to its negative from `frame` on: root mean square change of each latent frame (t')."""

    frame: int
    latents: tuple[float, ...]


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
    """Of clips in [-1, 1] as 8-bit pictures would have it: 10 log10(peak^2 / mean squared error), at most 99 dB."""
    error = (video.clamp(-1, 1) - other.clamp(-1, 1)).square().mean() / 4
    return min(float(-10 * error.clamp(min=1e-12).log10()), 99.0)


def _time_factor(codec: Codec) -> int:
    """Frames that one latent frame stands for."""
    match codec:
        case VideoVAE():
            return codec.cfg.temporal.time_factor
        case VaeV13() | HunyuanVAE() | DcAe():
            return codec.cfg.time_factor
        case _:
            return 1


def spans_of(codec: Codec, frames: int, height_px: int, width_px: int) -> tuple[tuple[int, int], ...]:
    """Frames [first, end) of each latent frame. What a codec pads, or gives the first frame alone, is in front, so the
    groups are full at the end."""
    factor = _time_factor(codec)
    chunk = codec.cfg.chunk_frames or frames if isinstance(codec, VideoVAE | VaeV13) else frames
    stride = chunk - 1 if isinstance(codec, VaeV13) and codec.cfg.overlap and 1 < chunk < frames else chunk
    last = frames - (chunk - stride)  # with an overlap, the shared frame begins no chunk of its own
    spans = []
    for start in range(0, last, stride):
        count = min(chunk, frames - start)
        latents = codec.latent_size(count, height_px, width_px)[0]
        ends = [start + count - (latents - j - 1) * factor for j in range(latents)]
        spans += [(max(end - factor, start), end) for end in ends]
    return tuple(spans)


def _rgb(video: Tensor) -> Frames:
    """(3, t, h, w) in [-1, 1] -> (t, h, w, 3) uint8."""
    return ((video.float().clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 3, 0).to("cpu", torch.uint8).numpy()


def _size(x: Tensor) -> tuple[int, int, int, int]:
    return (x.shape[1], x.shape[2], x.shape[3], x.shape[4])


def code(codec: Codec, video: Tensor, matrix: Tensor) -> Iterator[Coding | None]:
    """Code a clip (1, 3, t, h, w) in [-1, 1] and its changed versions; None after each part of the work, the result
    last. `matrix` shows latents, as `ModelBundle.preview_matrix`."""
    frames, height_px, width_px = video.shape[2:]
    stages = [Stage("clip", _size(video), _rgb(video[0]))]
    if isinstance(codec, VideoVAE):
        middle = codec.spatial_vae.encode(video)
        fitted = fit_matrix(middle.float().cpu(), video.float().cpu())
        stages.append(Stage("2-D latents", _size(middle), latent_to_rgb(middle[0].float(), fitted.to(middle.device))))
        yield None
    latents = codec.encode(video)
    decoded = torch.cat(list(codec.decode_chunks(latents, frames)), dim=2)
    stages.append(Stage("latents", _size(latents), latent_to_rgb(latents[0].float(), matrix)))
    stages.append(Stage("decoded", _size(decoded), _rgb(decoded[0])))
    yield None

    spans = spans_of(codec, frames, height_px, width_px)
    firsts = sorted({first for first, _ in spans if first > 0})
    if len(firsts) > MOST_CHANGES:
        firsts = [firsts[round(i * (len(firsts) - 1) / (MOST_CHANGES - 1))] for i in range(MOST_CHANGES)]
    changes = []
    for first in firsts:
        changed = torch.cat([video[:, :, :first], -video[:, :, first:]], dim=2)
        apart = (codec.encode(changed) - latents)[0].float().square().mean((0, 2, 3)).sqrt()
        changes.append(Change(first, tuple(apart.tolist())))
        yield None
    yield Coding(tuple(stages), spans, tuple(changes), psnr(video.float(), decoded.float()), codec.copies == 0)
