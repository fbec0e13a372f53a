"""The embedded models, one for each era of Open-Sora: the published classes with small numbers, trained by this
repository on one toy world, so that they can be compared on the same prompt."""

from __future__ import annotations

from dataclasses import replace

from opensora_demo.catalog.sizes import square
from opensora_demo.catalog.spec import ModelSpec, WeightFiles
from opensora_demo.codecs.dc_ae import DcAeConfig
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVaeConfig
from opensora_demo.codecs.tiling import Tiling
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.models.dit import DiTConfig
from opensora_demo.models.mmdit import MMDiTConfig
from opensora_demo.models.stdit3 import STDiT3Config
from opensora_demo.sampling.config import IddpmConfig, RectifiedFlowConfig
from opensora_demo.text.clip import ClipConfig
from opensora_demo.text.t5 import T5Config
from opensora_demo.types import DIFFUSION_RULES, Limits, Range

NETWORK = STDiT3Config(
    in_channels=16,
    width=256,
    depth=4,
    heads=4,
    text_channels=128,
    max_tokens=64,
    learned_sigma=False,
    base_px=64,
    pooled_text=True,
    frame_position=True,
)
CODEC = VideoVaeConfig(
    image=ImageVaeConfig(
        latent_channels=32,
        block_channels=(48, 96, 128),
        layers_per_block=1,
        decoder_layers=2,
        norm_groups=8,
        mid_attention=False,
        pixel_unshuffle=2,
        latent_scale=1.0,
        micro_batch=17,
    ),
    temporal=TemporalVaeConfig(
        in_channels=32,
        latent_channels=16,
        filters=48,
        res_blocks=1,
        channel_multipliers=(1, 2, 2),
        temporal_downsample=(True, True),
        norm_groups=8,
        norm_per_frame=True,
        decoder_extra=(2, 1, 0),
    ),
)
TEXT = T5Config(vocabulary=640, width=128, layers=2, heads=4, head_width=32, hidden=256, max_tokens=64, dropout=0.0)
CLIP = ClipConfig(
    vocabulary=640, width=192, layers=3, heads=4, hidden=512, max_tokens=56, bos=None, eos="</s>", pad="<pad>",
    unknown="<unk>",
)  # fmt: skip
FILES = WeightFiles(
    folder="nano",
    network=("dit-1.safetensors", "dit-2.safetensors"),
    codec=("vae-1.safetensors", "vae-2.safetensors"),
    text=("text.safetensors",),
    tokenizer="tokenizer.json",
    preview="preview.safetensors",
)

NANO = ModelSpec(
    id="nano",
    title="nano · STDiT3",
    summary="The layout of Open-Sora 1.2 with small numbers, trained in this repository on toy worlds: "
    "one coloured shape that moves in front of a painted background; two are still hard for it. Reads English "
    "and Chinese.",
    network=NETWORK,
    codec=CODEC,
    text=TEXT,
    sampler=RectifiedFlowConfig(ratio=2.0, order=2),
    weights=FILES,
    limits=Limits(
        steps=Range(low=1, high=100, default=16),
        guidance=Range(low=0, high=15, default=4, step=0.5),
        fps=Range(low=4, high=24, default=8),
        frames=(1, 5, 9, 13, 17),
        default_frames=17,
        sizes=square(64),
    ),
)

NANO_DIT = ModelSpec(
    id="nano-dit",
    title="nano · DiT (1.0)",
    summary="The DiT of Open-Sora 1.0 with small numbers: the whole prompt as one vector, adaLN-Zero, full attention, "
    "diffusion with learned variance. On the same toy worlds and with the VAE of nano, less sure of shapes and "
    "motions. Plays at 8 FPS as trained.",
    network=DiTConfig(input_size=(5, 8, 8), in_channels=16, width=256, depth=6, heads=4, text_channels=192),
    codec=CODEC,
    clip=CLIP,
    sampler=IddpmConfig(guided_channels=None),
    weights=WeightFiles(
        folder="nano-dit",
        network=("dit.safetensors",),
        codec=tuple(f"../nano/{name}" for name in FILES.codec),
        clip=("clip.safetensors",),
        clip_tokenizer="tokenizer.json",
        preview="../nano/preview.safetensors",
    ),
    limits=Limits(
        rules=DIFFUSION_RULES,
        steps=Range(low=2, high=250, default=50),
        guidance=Range(low=0, high=15, default=4, step=0.5),
        fps=Range(low=1, high=30, default=8),
        frames=(17,),
        default_frames=17,
        sizes=square(64),
        reference=False,
    ),
)

NANO_MMDIT = ModelSpec(
    id="nano-mmdit",
    title="nano · MMDiT (2.0)",
    summary="The layout of Open-Sora 2.0 with small numbers, 128 px: text and video as one sequence of tokens, on "
    "latents of a deep-compression autoencoder (16 x in space, 4 x in time). On the same toy worlds; it has learned "
    "the least of the three, and its shapes are still rough.",
    network=MMDiTConfig(
        in_channels=128,
        patch=2,
        width=256,
        heads=4,
        depth=2,
        depth_single=4,
        axes=(16, 24, 24),
        text_channels=128,
        pooled_channels=96,
    ),
    codec=DcAeConfig(
        latent_channels=32,
        widths=(48, 96, 192),
        encoder_depths=(1, 1, 1),
        decoder_depths=(2, 2, 3),
        attention=(None, None, ()),
        time=(True, True, False),
        scaling_factor=4.3,
        pixel_unshuffle=4,
        tiling=Tiling(),
    ),
    text=replace(TEXT, max_tokens=56, attend_padding=True),
    clip=replace(CLIP, width=96, layers=2, hidden=256),
    sampler=RectifiedFlowConfig(shift="2.0", order=2),
    weights=WeightFiles(
        folder="nano-mmdit",
        network=("mmdit.safetensors",),
        codec=("dc-ae.safetensors",),
        text=("text.safetensors",),
        tokenizer="tokenizer.json",
        clip=("clip.safetensors",),
        clip_tokenizer="tokenizer.json",
        preview="preview.safetensors",
    ),
    limits=Limits(
        steps=Range(low=1, high=100, default=16),
        guidance=Range(low=0, high=15, default=4, step=0.5),
        fps=Range(low=4, high=24, default=8),
        frames=(1, 8, 12, 16),
        default_frames=16,
        sizes=square(128),
        image_guidance=Range(low=0, high=10, default=1, step=0.5),
    ),
)
