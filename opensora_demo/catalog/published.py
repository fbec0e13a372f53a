"""The published Open-Soras, 1.0 to 2.0: configurations, defaults and limits of each version's own settings.

Their weights are not in this repository: `HubWeights` says where each part is published.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from opensora_demo.catalog.sizes import sizes_1x, sizes_20, square
from opensora_demo.catalog.spec import HubFiles, HubWeights, ModelSpec
from opensora_demo.codecs.dc_ae import DcAeConfig
from opensora_demo.codecs.hunyuan import HunyuanConfig
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.taehv import TaehvConfig
from opensora_demo.codecs.vae_v13 import VaeV13Config
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.messages import message
from opensora_demo.models.mmdit import MMDiTConfig
from opensora_demo.models.stdit import STDiTConfig
from opensora_demo.models.stdit2 import STDiT2Config
from opensora_demo.models.stdit3 import STDiT3Config
from opensora_demo.models.stdit3_v13 import STDiT3V13Config
from opensora_demo.request.limits import DIFFUSION_RULES, RULES, VIDEO_USES, Limits, Range
from opensora_demo.sampling.config import IddpmConfig, RectifiedFlowConfig
from opensora_demo.text.clip import ClipConfig
from opensora_demo.text.t5 import T5Config

# T5 v1.1 XXL, the encoder alone: 9.5 GB in bfloat16; the others are the same in float32 or float16.
_T5 = (
    HubFiles("city96/t5-v1_1-xxl-encoder-bf16", ("model.safetensors",), size_bytes=9_524_000_000),
    HubFiles(
        "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
        ("text_encoder/model-00001-of-00002.safetensors", "text_encoder/model-00002-of-00002.safetensors"),
        "2c17b4e85261cd549b4068d086b7c2ba9d468e9f",
    ),
    HubFiles("comfyanonymous/flux_text_encoders", ("t5xxl_fp16.safetensors",)),
    HubFiles(
        "DeepFloyd/t5-v1_1-xxl",
        ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"),
        "c9c625d2ec93667ec579ede125fd3811d1f81d37",
    ),
    HubFiles(
        "hpcai-tech/Open-Sora-v2",
        (
            "google/t5-v1_1-xxl/pytorch_model-00001-of-00002.bin",
            "google/t5-v1_1-xxl/pytorch_model-00002-of-00002.bin",
        ),
    ),
)
_T5_TOKENIZER = (
    HubFiles("city96/t5-v1_1-xxl-encoder-bf16", ("spiece.model",), size_bytes=792_000),
    HubFiles("PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers", ("tokenizer/spiece.model",)),
    HubFiles("DeepFloyd/t5-v1_1-xxl", ("spiece.model",)),
    HubFiles("hpcai-tech/Open-Sora-v2", ("google/t5-v1_1-xxl/spiece.model",)),
)
_CLIP = (
    HubFiles("openai/clip-vit-large-patch14", ("model.safetensors",), size_bytes=1_711_000_000),  # of pictures too
    HubFiles("hpcai-tech/Open-Sora-v2", ("openai/clip-vit-large-patch14/model.safetensors",)),
    HubFiles("comfyanonymous/flux_text_encoders", ("clip_l.safetensors",)),
)
_CLIP_TOKENIZER = (
    HubFiles("openai/clip-vit-large-patch14", ("tokenizer.json",), size_bytes=2_220_000),
    HubFiles("hpcai-tech/Open-Sora-v2", ("openai/clip-vit-large-patch14/tokenizer.json",)),
)
_SD_VAE = (
    HubFiles(
        "stabilityai/sd-vae-ft-ema",
        ("diffusion_pytorch_model.safetensors",),
        "f04b2c4b98319346dad8c65879f680b1997b204a",
        335_000_000,
    ),
)
_TEXT: Any = {"text": _T5, "tokenizer": _T5_TOKENIZER}


def _v10(name: str, revision: str = "main") -> HubWeights:
    """1.0 as safetensors, or as the pickle of the first release."""
    return HubWeights(
        network=(
            HubFiles(f"hpcai-tech/OpenSora-STDiT-v1-{name}", ("model.safetensors",), revision, 3_042_000_000),
            HubFiles("hpcai-tech/Open-Sora", (f"OpenSora-v1-{name}.pth",), "b7e034189c6ac2d868bc8c672b7cdbd9c6b7ba96"),
        ),
        codec=_SD_VAE,
        **_TEXT,
    )


_DIFFUSION_STEPS = Range(low=2, high=250, default=100)
_FLOW_STEPS = Range(low=1, high=100, default=30)
_GUIDANCE_7 = Range(low=0, high=20, default=7, step=0.5)
_FPS_24 = Range(low=8, high=30, default=24)
_MOTION = Range(low=1, high=10, default=4)
_MOTION_OR_NOT = Range(low=0, high=10, default=0)  # 0 leaves it out of the prompt
_IMAGE_FPS = 120.0  # what 1.1 to 1.3 were told of single images in training

# Least-squares colours of latents as the network sees them, as ComfyUI has them (comfy/latent_formats.py, SD15 and
# HunyuanVideo). Of other entries none is published; `training.previews` fits one where the VAE's weights are.
_SD_RGB = (
    (0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177),
    (0.0, 0.0, 0.0),
)  # fmt: skip
_HUNYUAN_RGB = (
    (-0.0395, -0.0331, 0.0445), (0.0696, 0.0795, 0.0518), (0.0135, -0.0945, -0.0282), (0.0108, -0.0250, -0.0765),
    (-0.0209, 0.0032, 0.0224), (-0.0804, -0.0254, -0.0639), (-0.0991, 0.0271, -0.0669), (-0.0646, -0.0422, -0.0400),
    (-0.0696, -0.0595, -0.0894), (-0.0799, -0.0208, -0.0375), (0.1166, 0.1627, 0.0962), (0.1165, 0.0432, 0.0407),
    (-0.2315, -0.1920, -0.1355), (-0.0270, 0.0401, -0.0821), (-0.0616, -0.0997, -0.0727), (0.0249, -0.0469, -0.1703),
    (0.0259, -0.0192, -0.0761),
)  # fmt: skip

V10 = ModelSpec(
    id="opensora-1.0-256",
    title="Open-Sora 1.0 · STDiT, 16 x 256 px",
    summary=message("note.summary.opensora-1.0-256"),
    network=STDiTConfig(),
    codec=ImageVaeConfig(),
    text=T5Config(max_tokens=120, clean=True),
    sampler=IddpmConfig(),
    max_batch=2,
    weights=_v10("HQ-16x256x256"),
    rgb=_SD_RGB,
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
    summary=message("note.summary.opensora-1.0-512"),
    network=STDiTConfig(input_size=(16, 64, 64), space_scale=1.0),
    weights=_v10("HQ-16x512x512"),
    limits=replace(V10.limits, sizes=square(512)),
)

V11 = ModelSpec(
    id="opensora-1.1",
    title="Open-Sora 1.1 · STDiT2",
    summary=message("note.summary.opensora-1.1"),
    network=STDiT2Config(),
    codec=ImageVaeConfig(),
    text=T5Config(max_tokens=200, clean=True),
    sampler=IddpmConfig(float32_betas=True),
    rgb=_SD_RGB,
    image_fps=_IMAGE_FPS,
    max_batch=2,
    weights=HubWeights(
        network=(
            HubFiles(
                "hpcai-tech/OpenSora-STDiT-v2-stage3",
                ("model.safetensors",),
                "3074d7cc95aca24ae12b685e07fab7d3e2570667",
                3_073_000_000,
            ),
        ),
        codec=_SD_VAE,
        **_TEXT,
    ),
    limits=Limits(
        rules=DIFFUSION_RULES,
        steps=_DIFFUSION_STEPS,
        guidance=_GUIDANCE_7,
        fps=Range(low=1, high=30, default=8),
        frames=(1, 16, 32, 64),
        default_frames=16,
        sizes=sizes_1x("240p", multiple=8),
        last_frame=True,
        video_uses=VIDEO_USES,
        video_frames=(8, 16, 32),  # half of each length
        scenes=8,
        edit=True,
    ),
)

V12 = ModelSpec(
    id="opensora-1.2",
    title="Open-Sora 1.2 · STDiT3",
    summary=message("note.summary.opensora-1.2"),
    network=STDiT3Config(),
    codec=VideoVaeConfig(),
    text=T5Config(max_tokens=300, clean=True),
    sampler=RectifiedFlowConfig(shift="1.2"),
    image_fps=_IMAGE_FPS,
    max_batch=2,
    weights=HubWeights(
        network=(HubFiles("hpcai-tech/OpenSora-STDiT-v3", ("model.safetensors",), size_bytes=4_835_000_000),),
        codec=(
            HubFiles(
                "hpcai-tech/OpenSora-VAE-v1.2",
                ("model.safetensors",),
                "33d153e9b5a9f771a8a84f98bd3f46458a8ed0bf",
                1_573_000_000,
            ),
        ),
        **_TEXT,
    ),
    aesthetic_score=6.5,
    limits=Limits(
        caches_steps=True,
        steps=_FLOW_STEPS,
        guidance=_GUIDANCE_7,
        fps=_FPS_24,
        frames=(1, 17, 34, 51, 102),
        default_frames=51,
        sizes=sizes_1x("240p", multiple=8),
        last_frame=True,
        video_uses=VIDEO_USES,
        video_frames=(17, 34, 51),  # whole chunks of its codec, as many latent frames as upstream's loops keep, or more
        scenes=8,
        edit=True,
        motion_score=_MOTION_OR_NOT,
    ),
)

V13 = ModelSpec(
    id="opensora-1.3",
    title="Open-Sora 1.3 · STDiT3 with windows",
    summary=message("note.summary.opensora-1.3"),
    network=STDiT3V13Config(),
    codec=VaeV13Config(),
    text=T5Config(max_tokens=300, clean=True),
    sampler=RectifiedFlowConfig(shift="1.3", rescale=0.7),
    image_fps=_IMAGE_FPS,
    max_batch=2,
    tiny=TaehvConfig(file="taeos1_3", group=5),
    weights=HubWeights(
        network=(
            HubFiles("hpcai-tech/OpenSora-STDiT-v4-360p", ("model.safetensors",), size_bytes=4_837_000_000),
            HubFiles("hpcai-tech/OpenSora-STDiT-v4", ("model.safetensors",)),
        ),
        codec=(HubFiles("hpcai-tech/OpenSora-VAE-v1.3", ("model.safetensors",), size_bytes=518_000_000),),
        codec_dtype="bfloat16",
        **_TEXT,
    ),
    limits=Limits(
        caches_steps=True,
        steps=_FLOW_STEPS,
        guidance=Range(low=0, high=20, default=7.5, step=0.5),
        fps=_FPS_24,
        frames=(1, 49, 65, 81, 97, 113),
        default_frames=113,
        sizes=sizes_1x("360p", multiple=16),
        last_frame=True,
        video_uses=("extend", "head"),
        video_frames=(17, 33, 49),  # whole chunks of its codec: five latent frames, as upstream's loops keep, or more
        scenes=8,
        rules=("oscillating", *(rule for rule in RULES if rule != "oscillating")),
        image_guidance=Range(low=0, high=15, default=5, step=0.5),
        motion_score=_MOTION_OR_NOT,
    ),
)

V20 = ModelSpec(
    id="opensora-2.0",
    title="Open-Sora 2.0 · MMDiT 11B",
    summary=message("note.summary.opensora-2.0"),
    network=MMDiTConfig(),
    codec=HunyuanConfig(),
    text=T5Config(max_tokens=512, attend_padding=True),
    clip=ClipConfig(),
    sampler=RectifiedFlowConfig(shift="2.0"),
    rgb=_HUNYUAN_RGB,
    tiny=TaehvConfig(file="taehv"),
    max_batch=1,
    weights=HubWeights(
        network=(HubFiles("hpcai-tech/Open-Sora-v2", ("Open_Sora_v2.safetensors",), size_bytes=23_783_000_000),),
        codec=(HubFiles("hpcai-tech/Open-Sora-v2", ("hunyuan_vae.safetensors",), size_bytes=493_000_000),),
        clip=_CLIP,
        clip_tokenizer=_CLIP_TOKENIZER,
        network_dtype="bfloat16",
        codec_dtype="bfloat16",
        **_TEXT,
    ),
    limits=Limits(
        caches_steps=True,
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
        video_uses=VIDEO_USES,
        video_frames=(33, 65),  # the latent frames of v2v_head and v2v_head_easy
    ),
)

_V20_DCAE = "hpcai-tech/Open-Sora-v2-Video-DC-AE"
_V20_DCAE_COMMIT = "162780d1bbbeeb469dd5b98c573e678d54e76963"
V20_DCAE = replace(
    V20,
    id="opensora-2.0-dcae",
    title="Open-Sora 2.0 · MMDiT 11B, deep compression",
    summary=message("note.summary.opensora-2.0-dcae"),
    network=MMDiTConfig(in_channels=128, patch=1),
    rgb=None,
    tiny=None,
    codec=DcAeConfig(),
    weights=HubWeights(
        network=(HubFiles(_V20_DCAE, ("Open_Sora_v2_Video_DC_AE.safetensors",), _V20_DCAE_COMMIT, 23_784_000_000),),
        codec=(HubFiles(_V20_DCAE, ("F32T4C128_AE.safetensors",), _V20_DCAE_COMMIT, 919_000_000),),
        clip=_CLIP,
        clip_tokenizer=_CLIP_TOKENIZER,
        network_dtype="bfloat16",
        codec_dtype="bfloat16",
        **_TEXT,
    ),
    limits=replace(
        V20.limits,
        frames=(1, 32, 64, 96, 128),
        default_frames=128,
        sizes=sizes_20("768px", multiple=32),
        video_frames=(32, 64),
    ),
)

PUBLISHED = (V10, V10_512, V11, V12, V13, V20, V20_DCAE)
