"""A tiny model of random weights for every family: pictures are noise, everything else is as in the published ones.

They show that each version runs through the pipeline, the page and the command line, in a second and without files.
"""

from __future__ import annotations

from dataclasses import replace

from opensora_demo.catalog.nano import CLIP, SHAPE_LABELS, TEXT
from opensora_demo.catalog.published import V10, V11, V12, V13, V20, V20_DCAE
from opensora_demo.catalog.spec import ModelSpec, RandomWeights
from opensora_demo.codecs.dc_ae import DcAeConfig
from opensora_demo.codecs.hunyuan import HunyuanConfig
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVaeConfig
from opensora_demo.codecs.tiling import Tiling
from opensora_demo.codecs.vae_v13 import VaeV13Config
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.messages import message
from opensora_demo.models.dit import DiTConfig
from opensora_demo.models.mmdit import MMDiTConfig
from opensora_demo.models.stdit import STDiTConfig
from opensora_demo.models.stdit2 import STDiT2Config
from opensora_demo.models.stdit3 import STDiT3Config
from opensora_demo.models.stdit3_v13 import STDiT3V13Config
from opensora_demo.request.limits import Limits, Range, Size
from opensora_demo.sampling.config import IddpmConfig

_TEXT = replace(TEXT, width=32, layers=1, heads=2, head_width=16, hidden=64, max_tokens=32)
_CLIP = replace(CLIP, width=24, layers=1, heads=2, hidden=48, max_tokens=32)
_TEMPORAL = TemporalVaeConfig(filters=8, res_blocks=1, norm_groups=4)
_IMAGE = ImageVaeConfig(block_channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)
_SIZES = tuple(
    Size(resolution=name, aspect=aspect, height_px=side * h // 32, width_px=side * w // 32)
    for name, side in (("32px", 32), ("64px", 64))
    for aspect, (h, w) in (("3:2", (32, 48)), ("2:3", (48, 32)))
)
_SUMMARY = message("note.summary.debug")


def _tiny(spec: ModelSpec, limits: Limits, video_frames: tuple[int, ...] = ()) -> Limits:
    """The version's own controls and defaults over a tiny picture and few steps; `video_frames` replaces its own."""
    steps = replace(spec.limits.steps, default=4)
    sizes = _SIZES if len(spec.limits.sizes) > 1 else _SIZES[:1]
    return replace(
        spec.limits,
        steps=steps,
        frames=limits.frames,
        default_frames=limits.default_frames,
        sizes=sizes,
        video_frames=video_frames,
    )


def _lengths(*frames: int) -> Limits:
    return replace(V12.limits, frames=frames, default_frames=frames[-1])


DIT = ModelSpec(
    id="debug-1.0-dit",
    title="debug · 1.0 DiT",
    summary=_SUMMARY,
    network=DiTConfig(input_size=(8, 4, 6), width=48, depth=2, heads=4, text_channels=24),
    codec=_IMAGE,
    clip=_CLIP,
    sampler=IddpmConfig(),
    weights=RandomWeights(),
    limits=replace(_tiny(V10, _lengths(8)), guidance=Range(low=0, high=20, default=4, step=0.5)),
    hidden=True,
)
LATTE = replace(
    DIT,
    id="debug-1.0-latte",
    title="debug · 1.0 Latte",
    network=DiTConfig(input_size=(8, 4, 6), width=48, depth=2, heads=4, text_channels=24, alternate=True),
    sampler=IddpmConfig(method="dpm-solver++", guided_channels=None),
)
CLASSES = replace(
    DIT,
    id="debug-1.0-class",
    title="debug · DiT, class labels",
    network=DiTConfig(input_size=(8, 4, 6), width=48, depth=2, heads=4, classes=len(SHAPE_LABELS)),
    clip=None,
    labels=SHAPE_LABELS,
)
STDIT = replace(
    V10,
    id="debug-1.0",
    title="debug · 1.0 STDiT",
    summary=_SUMMARY,
    network=STDiTConfig(input_size=(8, 4, 6), width=48, depth=1, heads=4, text_channels=32, max_tokens=32),
    codec=_IMAGE,
    text=_TEXT,
    weights=RandomWeights(),
    limits=_tiny(V10, _lengths(8)),
    hidden=True,
)
PIXART = replace(
    STDIT,
    id="debug-1.0-pixart",
    title="debug · 1.0 PixArt",
    network=STDiTConfig(
        input_size=(1, 4, 6), width=48, depth=1, heads=4, text_channels=32, max_tokens=32, temporal=False
    ),
    sampler=IddpmConfig(method="ddim"),
    limits=_tiny(V10, _lengths(1)),
)
STDIT2 = replace(
    V11,
    id="debug-1.1",
    title="debug · 1.1 STDiT2",
    summary=_SUMMARY,
    network=STDiT2Config(width=48, depth=1, heads=4, text_channels=32, max_tokens=32),
    codec=_IMAGE,
    text=_TEXT,
    weights=RandomWeights(),
    limits=_tiny(V11, _lengths(1, 8), (4,)),
    hidden=True,
)
STDIT3 = replace(
    V12,
    id="debug-1.2",
    title="debug · 1.2 STDiT3",
    summary=_SUMMARY,
    network=STDiT3Config(width=48, depth=1, heads=4, text_channels=32, max_tokens=32),
    codec=VideoVaeConfig(image=_IMAGE, temporal=_TEMPORAL),
    text=_TEXT,
    weights=RandomWeights(),
    limits=_tiny(V12, _lengths(1, 17, 34), (17,)),
    hidden=True,
)
STDIT3_FIRST_FRAME = replace(
    STDIT3,
    id="debug-1.2-first-frame",
    title="debug · 1.2 STDiT3, copies of the first frame before it",
    codec=VideoVaeConfig(image=_IMAGE, temporal=replace(_TEMPORAL, time_padding="first frame")),
)
STDIT3_BOTH_SIDES = replace(
    STDIT3,
    id="debug-1.2-both-sides",
    title="debug · 1.2 STDiT3, zeros on both sides in time",
    codec=VideoVaeConfig(image=_IMAGE, temporal=replace(_TEMPORAL, time_padding="both sides")),
)
STDIT3_V13 = replace(
    V13,
    id="debug-1.3",
    title="debug · 1.3 STDiT3",
    summary=_SUMMARY,
    network=STDiT3V13Config(width=48, depth=1, heads=4, text_channels=32, max_tokens=32, window=(2, 2)),
    codec=VaeV13Config(channels=32, multipliers=(1, 1, 1, 1), res_blocks=0),
    text=_TEXT,
    weights=RandomWeights(),
    limits=_tiny(V13, _lengths(1, 17, 33), (17,)),
    hidden=True,
)
MMDIT = replace(
    V20,
    id="debug-2.0",
    title="debug · 2.0 MMDiT",
    summary=_SUMMARY,
    network=MMDiTConfig(
        width=48, heads=3, depth=1, depth_single=1, axes=(4, 6, 6), text_channels=32, pooled_channels=24
    ),
    codec=HunyuanConfig(block_channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4),
    text=replace(_TEXT, attend_padding=True),
    clip=_CLIP,
    weights=RandomWeights(),
    limits=_tiny(V20, _lengths(1, 9, 17), (5, 9)),
    hidden=True,
)
MMDIT_DCAE = replace(
    V20_DCAE,
    id="debug-2.0-dcae",
    title="debug · 2.0 MMDiT, DC-AE",
    summary=_SUMMARY,
    network=MMDiTConfig(
        in_channels=16,
        patch=1,
        width=48,
        heads=3,
        depth=1,
        depth_single=1,
        axes=(4, 6, 6),
        text_channels=32,
        pooled_channels=24,
    ),
    codec=DcAeConfig(
        latent_channels=16,
        widths=(8, 16, 32),
        encoder_depths=(1, 1, 1),
        decoder_depths=(1, 1, 1),
        attention=(None, None, (5,)),
        time=(True, True, False),
        tiling=Tiling(temporal=True),
    ),
    text=replace(_TEXT, attend_padding=True),
    clip=_CLIP,
    weights=RandomWeights(),
    limits=_tiny(V20_DCAE, _lengths(1, 8, 16), (4, 8)),
    hidden=True,
)

DEBUG = (
    DIT, LATTE, CLASSES, STDIT, PIXART, STDIT2, STDIT3,
    STDIT3_FIRST_FRAME, STDIT3_BOTH_SIDES, STDIT3_V13, MMDIT, MMDIT_DCAE
)  # fmt: skip
