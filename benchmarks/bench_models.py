"""The networks and the codecs of this package against a reference-like formulation of the same arithmetic.

Each case has the same weights and the same input on both sides (`benchmarks.baseline`; tests/unit/test_bench.py says
that both give the same numbers). A step at a scale of guidance other than 1 calls a network for two branches; at scale
1 the package calls it for one, the reference for two all the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.baseline.mmdit import mmdit
from benchmarks.baseline.stdit import stdit2, stdit3
from benchmarks.baseline.vae import hunyuan_decode, video_vae_decode
from benchmarks.pairs import Matmul, Took, alternate, median_s, ratio, speed
from benchmarks.report import Report, Row
from opensora_demo.catalog import find_model
from opensora_demo.codecs.hunyuan import HunyuanConfig
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVaeConfig
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.models.mmdit import MMDiTConfig
from opensora_demo.models.stdit2 import STDiT2Config
from opensora_demo.models.stdit3 import STDiT3Config
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.runtime.cost.counter import Counter
from opensora_demo.runtime.precision import has_bfloat16
from opensora_demo.weights.reading import random_module

WIDTH, HEADS = 384, 6
GRID = (8, 32, 32)  # latents of a case (t, h, w); a patch covers 1 x 2 x 2 of them
TOKENS, TEXT = 120, 1024  # tokens of a prompt, and channels of the text encoder's features
BRANCHES = 2  # the prompt and the null prompt

Call = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One forward pass: what this package computes and what the reference does. `alone` is this package's at guidance
    1, where there is such a thing."""

    name: str
    ours: Call
    reference: Call
    alone: Call | None = None


def stdit3_case(
    name: str, net: Any, grid: tuple[int, int, int], tokens: int, dtype: torch.dtype = torch.float32
) -> Case:
    """A step of an STDiT3 on latents of `grid`, with a prompt of so many tokens."""
    x, y = _noise(net.cfg.in_channels, grid), _text(tokens, net.cfg.text_channels).to(dtype)
    told = {"fps": torch.full((BRANCHES,), 24.0), "height_px": 8.0 * grid[1], "width_px": 8.0 * grid[2]}
    return _case(name, net, stdit3, x, 900.0, y, told)


def stdit2_case(name: str, net: Any, grid: tuple[int, int, int], tokens: int) -> Case:
    """The same of an STDiT2."""
    x, y = _noise(net.cfg.in_channels, grid), _text(tokens, net.cfg.text_channels)
    told = {"fps": torch.full((BRANCHES,), 24.0), "frames": torch.full((BRANCHES,), float(grid[0]))}
    size = {"height_px": 8.0 * grid[1], "width_px": 8.0 * grid[2], "aspect": grid[1] / grid[2]}
    return _case(name, net, stdit2, x, 900.0, y, told | size)


def _case(
    name: str, net: Any, reference: Callable[..., Tensor], x: Tensor, at: float, y: Tensor, told: dict[str, Any]
) -> Case:
    """Of a network that reads text by cross-attention, which this package projects once for a whole run."""
    time = torch.full((BRANCHES,), at)
    text = net.project_text(y)
    first = {key: value[:1] if isinstance(value, Tensor) else value for key, value in told.items()}
    return Case(
        name=name,
        ours=partial(net, x, time, text, **told),
        reference=partial(reference, net, x, time, y, **told),
        alone=partial(net, x[:1], time[:1], text.select([0]), **first),
    )


def mmdit_case(name: str, net: Any, grid: tuple[int, int, int], tokens: int) -> Case:
    """A step of an MMDiT, no frames given."""
    cfg = net.cfg
    x, y = _noise(cfg.latent_channels, grid), _text(tokens, cfg.text_channels)
    pooled, time = _text(1, cfg.pooled_channels)[:, 0], torch.full((BRANCHES,), 0.9)
    cond = torch.zeros(BRANCHES, 1 + cfg.latent_channels, *grid) if cfg.cond_embed else None
    one = None if cond is None else cond[:1]
    return Case(
        name=name,
        ours=partial(net, x, time, y, pooled, cond=cond),
        reference=partial(mmdit, net, x, time, y, pooled, cond=cond),
        alone=partial(net, x[:1], time[:1], y[:1], pooled[:1], cond=one),
    )


def codec_case(name: str, codec: Any, decode: Callable[..., Tensor], frames: int, side_px: int) -> Case:
    """Latents of a square clip, decoded. The reference has a copy of the weights in the usual layout."""
    size = codec.latent_size(frames, side_px, side_px)
    z = torch.randn(1, codec.latent_channels, *size, generator=torch.Generator().manual_seed(0))
    plain = copy.deepcopy(codec).to(memory_format=torch.contiguous_format)
    return Case(name=name, ours=partial(codec.decode, z, frames), reference=partial(decode, plain, z, frames))


def _noise(channels: int, grid: tuple[int, int, int]) -> Tensor:
    return torch.randn(1, channels, *grid, generator=torch.Generator().manual_seed(0)).expand(BRANCHES, -1, -1, -1, -1)


def _text(tokens: int, channels: int) -> Tensor:
    return torch.randn(BRANCHES, tokens, channels, generator=torch.Generator().manual_seed(1))


def nano_cases(frames: int | None = None) -> Iterator[Case]:
    """The model that the page begins with: a step at its own size, and its decoding; of clips of `frames` frames in
    place of the usual length."""
    bundle = build_bundle(find_model("nano"))
    limits = bundle.spec.limits
    size, count = limits.sizes[0], frames or limits.default_frames
    grid = bundle.codec.latent_size(count, size.height_px, size.width_px)
    yield stdit3_case("nano, a step", bundle.family.network, grid, 12)
    yield codec_case("nano, decoding", bundle.codec, video_vae_decode, count, size.height_px)


def cases(*, quick: bool) -> Iterator[Case | str]:
    """Cases one after the other, each built when it is asked for; a text says what is left out, and why."""
    if quick:
        yield from nano_cases(frames=5)
        return
    yield from nano_cases()
    config = STDiT3Config(in_channels=4, width=WIDTH, depth=6, heads=HEADS, text_channels=TEXT, max_tokens=TOKENS)
    net = random_module(config.build, 0)
    yield stdit3_case("STDiT3, width 384, 6 + 6 blocks", net, GRID, TOKENS)
    if has_bfloat16():
        yield stdit3_case("the same in bfloat16", net.to(torch.bfloat16), GRID, TOKENS, torch.bfloat16)
    else:
        yield "STDiT3 in bfloat16: this processor has no instructions for it"
    del net
    older = STDiT2Config(width=WIDTH, depth=6, heads=HEADS, text_channels=TEXT, max_tokens=TOKENS)
    yield stdit2_case("STDiT2, width 384, 6 blocks", random_module(older.build, 0), GRID, TOKENS)
    joint = MMDiTConfig(
        width=WIDTH, heads=HEADS, depth=2, depth_single=3, axes=(16, 24, 24), text_channels=TEXT, pooled_channels=256
    )
    yield mmdit_case("MMDiT, width 384, 2 + 3 blocks", random_module(joint.build, 0), GRID, TOKENS)
    yield codec_case(
        "1.2's VAE at half its width, decoding", random_module(VIDEO_VAE.build, 0), video_vae_decode, 17, 64
    )
    yield codec_case("2.0's VAE at half its width, decoding", random_module(HUNYUAN.build, 0), hunyuan_decode, 9, 48)


VIDEO_VAE = VideoVaeConfig(
    image=replace(ImageVaeConfig(), block_channels=(64, 128, 256, 256)), temporal=TemporalVaeConfig(filters=64)
)
HUNYUAN = HunyuanConfig(block_channels=(64, 128, 256, 256))


def counted(call: Call) -> tuple[float, int]:
    """FLOPs of a call, and the most bytes that tensors made in it hold at once."""
    with Counter() as counter:
        call()
    return counter.flops, counter.peak_bytes


@torch.inference_mode()
def measure_case(case: Case, matmul: Matmul, report: Report, *, rounds: int, limit_s: float) -> dict[str, list[Took]]:
    """Both sides and matrix products in turn, after each has run once to be counted."""
    flops, ours_bytes = counted(case.ours)
    _, reference_bytes = counted(case.reference)
    runs: dict[str, Call] = {"reference": case.reference, "ours": case.ours}
    if case.alone is not None:
        runs["alone"] = case.alone
    runs["matmul"] = matmul
    times = alternate(runs, rounds=rounds, limit_s=limit_s)
    found = speed(flops, times["ours"], times["matmul"], matmul.flops)
    report.add(
        Row(
            group="models",
            name=case.name if case.alone is None else f"{case.name}, guidance 7",
            value=median_s(times["ours"]),
            unit="s",
            of="reference / ours",
            ratio=ratio(times["reference"], times["ours"]),
            speed=found,
        )
    )
    if "alone" in times:
        report.add(
            Row(
                group="models",
                name=f"{case.name}, guidance 1",
                value=median_s(times["alone"]),
                unit="s",
                of="reference / ours",
                ratio=ratio(times["reference"], times["alone"]),
            )
        )
    report.peaks[case.name] = {"ours_mb": round(ours_bytes / 1e6, 1), "reference_mb": round(reference_bytes / 1e6, 1)}
    return times


def measure(report: Report, *, quick: bool, rounds: int, limit_s: float) -> None:
    """Every case, each with its share of the time that is left."""
    matmul = Matmul(side=256, times=2) if quick else Matmul()
    left = 2 if quick else 7 + has_bfloat16()
    peaks: list[Took] = []
    end = report.clock() + limit_s
    for case in cases(quick=quick):
        if isinstance(case, str):
            report.left_out.append(case)
            continue
        share = max(end - report.clock(), 0.0) / max(left, 1)
        peaks += measure_case(case, matmul, report, rounds=rounds, limit_s=share)["matmul"]
        left -= 1
    report.peak_gflops = round(matmul.flops / median_s(peaks) / 1e9, 1)
