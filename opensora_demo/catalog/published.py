"""The published Open-Soras, 1.0 to 2.0: configurations, defaults and limits of each version's own settings.

Their weights are not in this repository: each entry reads safetensors from a folder of its own under `weights`.
"""

from __future__ import annotations

from dataclasses import replace

from opensora_demo.catalog.sizes import sizes_1x, sizes_20, square
from opensora_demo.catalog.spec import ModelSpec, WeightFiles
from opensora_demo.codecs.dc_ae import DcAeConfig
from opensora_demo.codecs.hunyuan import HunyuanConfig
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.vae_v13 import VaeV13Config
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.models.mmdit import MMDiTConfig
from opensora_demo.models.stdit import STDiTConfig
from opensora_demo.models.stdit2 import STDiT2Config
from opensora_demo.models.stdit3 import STDiT3Config
from opensora_demo.models.stdit3_v13 import STDiT3V13Config
from opensora_demo.sampling.config import IddpmConfig, RectifiedFlowConfig
from opensora_demo.text.clip import ClipConfig
from opensora_demo.text.t5 import T5Config
from opensora_demo.types import DIFFUSION_RULES, RULES, Limits, Range


def _files(folder: str, *, clip: bool = False) -> WeightFiles:
    """The names under which a folder of `weights` holds a published model."""
    return WeightFiles(
        folder=folder,
        network=("transformer.safetensors",),
        codec=("vae.safetensors",),
        text=("t5.safetensors",),
        tokenizer="t5-tokenizer.json",
        clip=("clip.safetensors",) if clip else (),
        clip_tokenizer="clip-tokenizer.json" if clip else "",
    )


_DIFFUSION_STEPS = Range(low=2, high=250, default=100)
_FLOW_STEPS = Range(low=1, high=100, default=30)
_GUIDANCE_7 = Range(low=0, high=20, default=7, step=0.5)
_FPS_24 = Range(low=8, high=30, default=24)
_MOTION = Range(low=1, high=10, default=4)
_MOTION_OR_NOT = Range(low=0, high=10, default=0)  # 0 leaves it out of the prompt
_IMAGE_FPS = 120.0  # what 1.1 to 1.3 were told of single images in training

V10 = ModelSpec(
    id="opensora-1.0-256",
    title="Open-Sora 1.0 · STDiT, 16 x 256 px",
    summary="The first release (hpcai-tech/Open-Sora, OpenSora-v1-HQ-16x256x256): diffusion, 16 frames, text only.",
    network=STDiTConfig(),
    codec=ImageVaeConfig(),
    text=T5Config(max_tokens=120, clean=True),
    sampler=IddpmConfig(),
    max_batch=2,
    weights=_files("opensora-1.0-256"),
    limits=Limits(
        rules=DIFFUSION_RULES,
        steps=_DIFFUSION_STEPS,
        guidance=_GUIDANCE_7,
        fps=Range(low=1, high=30, default=8),
        frames=(16,),
        default_frames=16,
        sizes=square(256),
        reference=False,
    ),
)

V10_512 = replace(
    V10,
    id="opensora-1.0-512",
    title="Open-Sora 1.0 · STDiT, 16 x 512 px",
    summary="The first release at 512 px (hpcai-tech/Open-Sora, OpenSora-v1-HQ-16x512x512).",
    network=STDiTConfig(input_size=(16, 64, 64), space_scale=1.0),
    weights=_files("opensora-1.0-512"),
    limits=replace(V10.limits, sizes=square(512)),
)

V11 = ModelSpec(
    id="opensora-1.1",
    title="Open-Sora 1.1 · STDiT2",
    summary="Any size and length, and frames that are given (hpcai-tech/OpenSora-STDiT-v2-stage3).",
    network=STDiT2Config(),
    codec=ImageVaeConfig(),
    text=T5Config(max_tokens=200, clean=True),
    sampler=IddpmConfig(float32_betas=True),
    image_fps=_IMAGE_FPS,
    max_batch=2,
    weights=_files("opensora-1.1"),
    limits=Limits(
        rules=DIFFUSION_RULES,
        steps=_DIFFUSION_STEPS,
        guidance=_GUIDANCE_7,
        fps=Range(low=1, high=30, default=8),
        frames=(1, 16, 32, 64),
        default_frames=16,
        sizes=sizes_1x("240p", multiple=8),
        last_frame=True,
        edit=True,
    ),
)

V12 = ModelSpec(
    id="opensora-1.2",
    title="Open-Sora 1.2 · STDiT3",
    summary="Rectified flow and a VAE that also shortens time (hpcai-tech/OpenSora-STDiT-v3, OpenSora-VAE-v1.2).",
    network=STDiT3Config(),
    codec=VideoVaeConfig(),
    text=T5Config(max_tokens=300, clean=True),
    sampler=RectifiedFlowConfig(shift="1.2"),
    image_fps=_IMAGE_FPS,
    max_batch=2,
    weights=_files("opensora-1.2"),
    aesthetic_score=6.5,
    limits=Limits(
        steps=_FLOW_STEPS,
        guidance=_GUIDANCE_7,
        fps=_FPS_24,
        frames=(1, 17, 34, 51, 102),
        default_frames=51,
        sizes=sizes_1x("240p", multiple=8),
        last_frame=True,
        edit=True,
        motion_score=_MOTION_OR_NOT,
    ),
)

V13 = ModelSpec(
    id="opensora-1.3",
    title="Open-Sora 1.3 · STDiT3 with windows",
    summary="Windowed attention, 3-D rotary positions, a 16-channel VAE (hpcai-tech/OpenSora-STDiT-v4).",
    network=STDiT3V13Config(),
    codec=VaeV13Config(),
    text=T5Config(max_tokens=300, clean=True),
    sampler=RectifiedFlowConfig(shift="1.3", rescale=0.7),
    image_fps=_IMAGE_FPS,
    max_batch=2,
    weights=_files("opensora-1.3"),
    limits=Limits(
        steps=_FLOW_STEPS,
        guidance=Range(low=0, high=20, default=7.5, step=0.5),
        fps=_FPS_24,
        frames=(1, 49, 65, 81, 97, 113),
        default_frames=113,
        sizes=sizes_1x("360p", multiple=16),
        last_frame=True,
        rules=("oscillating", *(rule for rule in RULES if rule != "oscillating")),
        image_guidance=Range(low=0, high=15, default=5, step=0.5),
        motion_score=_MOTION_OR_NOT,
    ),
)

V20 = ModelSpec(
    id="opensora-2.0",
    title="Open-Sora 2.0 · MMDiT 11B",
    summary="Text and video in one sequence, Hunyuan's causal VAE (hpcai-tech/Open-Sora-v2).",
    network=MMDiTConfig(),
    codec=HunyuanConfig(),
    text=T5Config(max_tokens=512, attend_padding=True),
    clip=ClipConfig(),
    sampler=RectifiedFlowConfig(shift="2.0"),
    max_batch=1,
    weights=_files("opensora-2.0", clip=True),
    limits=Limits(
        steps=Range(low=1, high=100, default=50),
        guidance=Range(low=0, high=20, default=7.5, step=0.5),
        fps=Range(low=8, high=30, default=24),
        frames=(1, 33, 65, 97, 129),
        default_frames=129,
        sizes=sizes_20("256px", multiple=16),
        last_frame=True,
        rules=("oscillating", *(rule for rule in RULES if rule != "oscillating")),
        image_guidance=Range(low=0, high=10, default=3, step=0.5),
        motion_score=_MOTION,
    ),
)

V20_DCAE = replace(
    V20,
    id="opensora-2.0-dcae",
    title="Open-Sora 2.0 · MMDiT 11B, deep compression",
    summary="The same on latents of a deep-compression autoencoder (hpcai-tech/Open-Sora-v2-Video-DC-AE).",
    network=MMDiTConfig(in_channels=128, patch=1),
    codec=DcAeConfig(),
    weights=_files("opensora-2.0-dcae", clip=True),
    limits=replace(V20.limits, frames=(1, 32, 64, 96, 128), default_frames=128, sizes=sizes_20("768px", multiple=32)),
)

PUBLISHED = (V10, V10_512, V11, V12, V13, V20, V20_DCAE)
