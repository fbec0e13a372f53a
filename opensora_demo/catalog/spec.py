"""What an entry of the catalog says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from opensora_demo.codecs.dc_ae import DcAeConfig
from opensora_demo.codecs.hunyuan import HunyuanConfig
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.taehv import TaehvConfig
from opensora_demo.codecs.vae_v13 import VaeV13Config
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.models.dit import DiTConfig
from opensora_demo.models.mmdit import MMDiTConfig
from opensora_demo.models.stdit import STDiTConfig
from opensora_demo.models.stdit2 import STDiT2Config
from opensora_demo.models.stdit3 import STDiT3Config
from opensora_demo.models.stdit3_v13 import STDiT3V13Config
from opensora_demo.sampling.config import SamplerConfig
from opensora_demo.text.clip import ClipConfig
from opensora_demo.text.t5 import T5Config
from opensora_demo.types import Limits

NetworkConfig = DiTConfig | STDiTConfig | STDiT2Config | STDiT3Config | STDiT3V13Config | MMDiTConfig
CodecConfig = ImageVaeConfig | VideoVaeConfig | VaeV13Config | HunyuanConfig | DcAeConfig
Part = Literal["network", "codec", "text", "tokenizer", "clip", "clip_tokenizer", "preview"]
Stored = Literal["float32", "bfloat16"]
TextMode = Literal["cross-attention", "token concatenation", "pooled vector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """Weights under one folder of `assets`: safetensors files (each a shard of one state dict), tokenizers and the
    preview matrix."""

    folder: str
    network: tuple[str, ...]
    codec: tuple[str, ...]
    text: tuple[str, ...] = ()
    tokenizer: str = ""
    clip: tuple[str, ...] = ()
    clip_tokenizer: str = ""
    preview: str = ""

    def all_files(self) -> tuple[str, ...]:
        names = (
            *self.network, *self.codec, *self.text, self.tokenizer, *self.clip, self.clip_tokenizer, self.preview
        )  # fmt: skip
        return tuple(dict.fromkeys(filter(None, names)))


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Files of one repository of the hub that hold one part together: the shards of a state dict, or a tokenizer.

    `revision` is the commit they were looked at; where none is known by its full name it is a branch.
    """

    repo: str
    files: tuple[str, ...]
    revision: str = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubWeights:
    """Published weights. Each part names the places that hold it: the first is the one to download, the others are
    taken where they are found. The dtypes are those of the first place's files."""

    network: tuple[HubFiles, ...]
    codec: tuple[HubFiles, ...]
    text: tuple[HubFiles, ...]
    tokenizer: tuple[HubFiles, ...]
    clip: tuple[HubFiles, ...] = ()
    clip_tokenizer: tuple[HubFiles, ...] = ()
    network_dtype: Stored = "float32"
    codec_dtype: Stored = "float32"

    def parts(self) -> dict[Part, tuple[HubFiles, ...]]:
        """The places of each part that the model has."""
        places: dict[Part, tuple[HubFiles, ...]] = {
            "network": self.network, "codec": self.codec, "text": self.text, "tokenizer": self.tokenizer,
            "clip": self.clip, "clip_tokenizer": self.clip_tokenizer,
        }  # fmt: skip
        return {part: found for part, found in places.items() if found}


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomWeights:
    """No files: values drawn from a seed, and a tokenizer of `assets`. Pictures are noise, everything else is real."""

    seed: int = 0
    tokenizer: str = "nano/tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model: what it is made of, where its weights are, and what it accepts.

    `text` is the T5, `clip` the CLIP encoder; a version has one or both. `aesthetic_score` is told in the prompt (1.2).
    `image_fps` is the rate told for a clip of one frame (None: the request's). `max_batch` bounds how many (clip,
    branch) pairs go through the network at once; None takes all of them.
    `rgb` shows latents as colours in [-1, 1]: red, green and blue of each channel, then what is added; `tiny` names a
    small decoder that shows them as pictures where its file is there.
    `hidden` entries are shown only when asked for.
    """

    id: str
    title: str
    summary: str
    network: NetworkConfig
    codec: CodecConfig
    sampler: SamplerConfig
    weights: WeightFiles | HubWeights | RandomWeights
    limits: Limits
    text: T5Config | None = None
    clip: ClipConfig | None = None
    aesthetic_score: float | None = None
    image_fps: float | None = None
    max_batch: int | None = None
    rgb: tuple[tuple[float, float, float], ...] | None = None
    tiny: TaehvConfig | None = None
    hidden: bool = False

    @property
    def text_mode(self) -> TextMode:
        """How the prompt reaches the network."""
        if isinstance(self.network, MMDiTConfig):
            return "token concatenation"
        return "pooled vector" if isinstance(self.network, DiTConfig) else "cross-attention"
