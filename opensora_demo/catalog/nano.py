"""The embedded model: the published classes with small numbers, trained by this repository."""

from __future__ import annotations

from opensora_demo.catalog.spec import ModelSpec, WeightFiles
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVaeConfig
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.models.stdit3 import STDiT3Config
from opensora_demo.sampling.config import RectifiedFlowConfig
from opensora_demo.text.t5 import T5Config
from opensora_demo.types import Limits, Range

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
FILES = WeightFiles(
    folder="nano",
    embedded=True,
    network=("dit-1.safetensors", "dit-2.safetensors"),
    codec=("vae-1.safetensors", "vae-2.safetensors"),
    text=("text.safetensors",),
    tokenizer="tokenizer.json",
    preview="preview.safetensors",
)

NANO = ModelSpec(
    id="nano",
    title="nano · STDiT3",
    summary="The layout of Open-Sora 1.2 with small numbers, trained in this repository on toy worlds: one "
    "coloured shape that moves in front of a painted background.",
    network=NETWORK,
    codec=CODEC,
    text=TEXT,
    sampler=RectifiedFlowConfig(),
    weights=FILES,
    limits=Limits(
        steps=Range(low=1, high=100, default=30),
        guidance=Range(low=0, high=15, default=4, step=0.5),
        fps=Range(low=4, high=24, default=8),
        frames=(1, 5, 9, 13, 17),
        default_frames=17,
        sizes_px=((64, 64),),
    ),
)
