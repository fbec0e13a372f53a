"""The embedded models, one for each era of Open-Sora: the published classes with small numbers, trained by this
repository on one toy world, so that they can be compared on the same prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from opensora_demo.catalog.sizes import square
from opensora_demo.catalog.spec import ModelSpec, WeightFiles
from opensora_demo.codecs.dc_ae import DcAeConfig
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.preview_decoder import PreviewConfig
from opensora_demo.codecs.temporal_vae import TemporalVaeConfig
from opensora_demo.codecs.tiling import Tiling
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.messages import Message, message
from opensora_demo.models.dit import DiTConfig
from opensora_demo.models.mmdit import MMDiTConfig
from opensora_demo.models.stdit3 import STDiT3Config
from opensora_demo.request.limits import ALL_RULES, DIFFUSION_RULES, RULES, Limits, Range
from opensora_demo.sampling.config import IddpmConfig, RectifiedFlowConfig
from opensora_demo.text.clip import ClipConfig
from opensora_demo.text.t5 import T5Config

NETWORK = STDiT3Config(
    in_channels=16,
    width=256,
    depth=4,
    heads=4,
    text_channels=128,
    max_tokens=64,
    learned_sigma=False,
    base_px=128,
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
        upscale=2,  # the encoder looks at 64 px
        refine=32,
        latent_scale=1.0,
        micro_batch=9,  # of 17 frames: in two parts
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
TEXT = T5Config(vocabulary=640, width=128, layers=4, heads=4, head_width=32, hidden=256, max_tokens=64, dropout=0.0)
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
    summary=message("note.summary.nano"),
    network=NETWORK,
    codec=CODEC,
    text=TEXT,
    sampler=RectifiedFlowConfig(ratio=2.0, order=2),
    weights=FILES,
    tiny=PreviewConfig(latent_channels=16),
    weaker="nano-weak",
    compared_with=("nano", "nano-dit", "nano-mmdit"),
    limits=Limits(
        caches_steps=True,
        rules=ALL_RULES,
        steps=Range(low=1, high=100, default=16),
        guidance=Range(low=0, high=15, default=4, step=0.5),
        fps=Range(low=4, high=24, default=8),
        frames=(1, 5, 9, 13, 17),
        default_frames=17,
        sizes=square(128),
        video_uses=("extend", "head"),
        video_frames=(9, 1, 5, 13),  # trained with one; more were measured to work better
        scenes=8,
        refines=True,
    ),
)


SIBLINGS = ("nano-cross", "nano-concat", "nano-replaced")


def _sibling(model_id: str, title: str, summary: Message, network: STDiT3Config) -> ModelSpec:
    """A network of its own on nano's latents, which reads what nano's text encoder says."""
    files = WeightFiles(
        folder=model_id,
        network=("dit.safetensors",),
        codec=tuple(f"../nano/{name}" for name in FILES.codec),
        text=tuple(f"../nano/{name}" for name in FILES.text),
        tokenizer=f"../nano/{FILES.tokenizer}",
        preview=f"../nano/{FILES.preview}",
    )
    alone: Any = {"weaker": "", "limits": replace(NANO.limits, rules=RULES), "compared_with": SIBLINGS}
    return replace(NANO, id=model_id, title=title, summary=summary, network=network, weights=files, **alone)


# One STDiT three times, alike but for how its text comes in, trained on the same latents with the same budget.
_SMALL = replace(NETWORK, depth=3)
NANO_CROSS = _sibling(
    "nano-cross",
    "nano · text by cross-attention",
    message("note.summary.nano-cross"),
    _SMALL,
)
NANO_CONCAT = _sibling(
    "nano-concat",
    "nano · text in the sequence",
    message("note.summary.nano-concat"),
    replace(_SMALL, conditioning="concatenation"),
)
NANO_REPLACED = _sibling(
    "nano-replaced",
    "nano · text in place of patches",
    message("note.summary.nano-replaced"),
    replace(_SMALL, conditioning="replacement"),
)

# The good one is guided away from this one (Karras et al., "Guiding a diffusion model with a bad version of itself",
# 2024): itself, as it was early in its training.
NANO_WEAK = replace(
    NANO,
    id="nano-weak",
    title="nano · early in its training",
    summary=message("note.summary.nano-weak"),
    weights=replace(
        FILES,
        folder="nano-weak",
        codec=tuple(f"../nano/{name}" for name in FILES.codec),
        text=tuple(f"../nano/{name}" for name in FILES.text),
        tokenizer=f"../nano/{FILES.tokenizer}",
        preview=f"../nano/{FILES.preview}",
    ),
    weaker="",
    limits=replace(NANO.limits, rules=RULES),
    hidden=True,
)

NANO_DIT = ModelSpec(
    id="nano-dit",
    title="nano · DiT (1.0)",
    summary=message("note.summary.nano-dit"),
    network=DiTConfig(input_size=(5, 8, 8), in_channels=16, width=256, depth=6, heads=4, text_channels=192),
    codec=CODEC,
    clip=CLIP,
    sampler=IddpmConfig(guided_channels=None),
    tiny=PreviewConfig(latent_channels=16),
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
        sizes=square(128),
        reference=False,
    ),
)

# The condition of the original DiT: a class, or none.
SHAPE_LABELS = (
    ("ball", ("ball", "sphere", "circle", "disc", "球", "圆球", "圓球", "球体", "球體")),
    ("square", ("square", "box", "cube", "block", "方块", "方塊", "正方形", "方形")),
    ("triangle", ("triangle", "pyramid", "cone", "三角形", "三角")),
    ("star", ("star", "starfish", "星星", "五角星", "星形")),
    ("heart", ("heart", "心", "爱心", "愛心", "心形")),
    ("ring", ("ring", "donut", "hoop", "圆环", "圓環", "环", "環", "甜甜圈")),
    ("diamond", ("diamond", "gem", "crystal", "菱形", "钻石", "鑽石", "宝石", "寶石")),
)
NANO_CLASS = replace(
    NANO_DIT,
    id="nano-class",
    title="nano · DiT, class labels",
    summary=message("note.summary.nano-class"),
    network=DiTConfig(input_size=(5, 8, 8), in_channels=16, width=256, depth=4, heads=4, classes=len(SHAPE_LABELS)),
    clip=None,
    labels=SHAPE_LABELS,
    compared_with=("nano-class", "nano-dit"),
    weights=WeightFiles(
        folder="nano-class",
        network=("dit.safetensors",),
        codec=tuple(f"../nano/{name}" for name in FILES.codec),
        preview="../nano/preview.safetensors",
    ),
)

NANO_MMDIT = ModelSpec(
    id="nano-mmdit",
    title="nano · MMDiT (2.0)",
    summary=message("note.summary.nano-mmdit"),
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
        # About the std of these weights' latents, and what the network was trained with. The export measures it on
        # clips of its own (`training.__main__.latents_of_clips`): 4.238 on 2026-11-29.
        scaling_factor=4.3,
        pixel_unshuffle=4,
        tiling=Tiling(temporal=True),
    ),
    text=replace(TEXT, layers=2, max_tokens=56, attend_padding=True),
    clip=replace(CLIP, width=96, layers=2, hidden=256),
    sampler=RectifiedFlowConfig(shift="2.0", order=2),
    tiny=PreviewConfig(latent_channels=32),
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
        caches_steps=True,
        steps=Range(low=1, high=100, default=16),
        guidance=Range(low=0, high=15, default=4, step=0.5),
        fps=Range(low=4, high=24, default=8),
        frames=(1, 8, 12, 16),
        default_frames=16,
        sizes=square(128),
        image_guidance=Range(low=0, high=10, default=1, step=0.5),
    ),
)
