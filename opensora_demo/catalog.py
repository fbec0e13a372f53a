"""Every model the demo can run, as literal data.

`nano` is an entry like any other: the published classes with small numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVaeConfig
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.errors import RequestError
from opensora_demo.models.stdit3 import STDiT3Config
from opensora_demo.text.t5 import T5Config
from opensora_demo.types import Limits, Range


@dataclass(frozen=True, slots=True, kw_only=True)
class RectifiedFlowConfig:
    """`shift` is the ratio of the timestep transform; 1 leaves the times even."""

    shift: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """Where a model's weights are: safetensors files (each a shard of one state dict) under a folder of `assets`."""

    folder: str
    network: tuple[str, ...]
    codec: tuple[str, ...]
    text: tuple[str, ...]
    tokenizer: str
    preview: str

    def all_files(self) -> tuple[str, ...]:
        return (*self.network, *self.codec, *self.text, self.tokenizer, self.preview)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model: what it is made of, where its weights are, and what it accepts."""

    id: str
    title: str
    summary: str
    network: STDiT3Config
    codec: VideoVaeConfig
    text: T5Config
    sampler: RectifiedFlowConfig
    weights: WeightFiles
    limits: Limits


NANO = ModelSpec(
    id="nano",
    title="nano · STDiT3",
    summary="The layout of Open-Sora 1.2 with small numbers, trained in this repository on toy worlds: one "
    "coloured shape that moves in front of a painted background.",
    network=STDiT3Config(
        in_channels=16,
        width=256,
        depth=4,
        heads=4,
        text_channels=128,
        max_tokens=32,
        learned_sigma=False,
        base_px=64,
        pooled_text=True,
        frame_position=True,
    ),
    codec=VideoVaeConfig(
        image=ImageVaeConfig(
            latent_channels=32,
            block_channels=(48, 96, 128),
            layers_per_block=1,
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
        ),
    ),
    text=T5Config(vocabulary=320, width=128, layers=2, heads=4, head_width=32, hidden=256, max_tokens=32, dropout=0.0),
    sampler=RectifiedFlowConfig(),
    weights=WeightFiles(
        folder="nano",
        network=("dit-1.safetensors", "dit-2.safetensors"),
        codec=("vae-1.safetensors", "vae-2.safetensors"),
        text=("text.safetensors",),
        tokenizer="tokenizer.json",
        preview="preview.safetensors",
    ),
    limits=Limits(
        steps=Range(low=1, high=100, default=30),
        guidance=Range(low=0, high=15, default=4, step=0.5),
        fps=Range(low=4, high=24, default=8),
        frames=(1, 5, 9, 13, 17),
        default_frames=17,
        sizes_px=((64, 64),),
    ),
)

MODELS: dict[str, ModelSpec] = {spec.id: spec for spec in (NANO,)}
DEFAULT_MODEL = NANO.id


def find_model(model_id: object) -> ModelSpec:
    """The entry called `model_id`; None or an empty text is the default. Raises RequestError("model")."""
    if model_id is None or model_id == "":
        model_id = DEFAULT_MODEL
    if not isinstance(model_id, str) or model_id not in MODELS:
        raise RequestError("model", f"must be one of {', '.join(MODELS)}, not {str(model_id)[:40]!r}")
    return MODELS[model_id]
