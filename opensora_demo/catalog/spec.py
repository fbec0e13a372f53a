"""What an entry of the catalog says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from opensora_demo.codecs.base import CodecConfig
from opensora_demo.codecs.preview_decoder import PreviewConfig
from opensora_demo.codecs.taehv import TaehvConfig
from opensora_demo.messages import Message
from opensora_demo.models.base import NetworkConfig, TextMode
from opensora_demo.request.limits import Limits
from opensora_demo.sampling.config import SamplerConfig
from opensora_demo.text.clip import ClipConfig
from opensora_demo.text.t5 import T5Config

Part = Literal["network", "codec", "text", "tokenizer", "clip", "clip_tokenizer", "preview"]
Stored = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """Weights under one folder of `assets`: safetensors files (each a shard of one state dict), tokenizers and the
    preview: how latents are shown, a linear map and a small decoder in one file."""

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

    `revision` is the commit they were looked at; where none is known by its full name it is a branch. `size_bytes` is
    about what they take together, of the first place of each part.
    """

    repo: str
    files: tuple[str, ...]
    revision: str = "main"
    size_bytes: int = 0


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


@dataclass(frozen=True, slots=True)
class ElsewhereWeights:
    """On another machine, whose server makes the clips. `own_limits`: it has said what it accepts."""

    own_limits: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model: what it is made of, where its weights are, and what it accepts.

    `text` is the T5, `clip` the CLIP encoder; a version has one or both. `aesthetic_score` is told in the prompt (1.2).
    `image_fps` is the rate told for a clip of one frame (None: the request's). `max_batch` bounds how many (clip,
    branch) pairs go through the network at once; None takes all of them.
    `rgb` shows latents as colours in [-1, 1]: red, green and blue of each channel, then what is added; `tiny` names a
    small decoder that shows them as pictures, a published one where its file is there, or one of ours that lies in
    the preview's file.
    `weaker` is the id of a model on the same latents that autoguidance leads away from; it is loaded with this one.
    `compared_with` are the models, itself among them, that a comparison of models begins with.
    `labels` are the classes of a network that takes no text, each with the words that name it.
    `hidden` entries are shown only when asked for.
    """

    id: str
    title: str
    summary: Message
    network: NetworkConfig
    codec: CodecConfig
    sampler: SamplerConfig
    weights: WeightFiles | HubWeights | RandomWeights | ElsewhereWeights
    limits: Limits
    text: T5Config | None = None
    clip: ClipConfig | None = None
    aesthetic_score: float | None = None
    image_fps: float | None = None
    max_batch: int | None = None
    rgb: tuple[tuple[float, float, float], ...] | None = None
    tiny: TaehvConfig | PreviewConfig | None = None
    weaker: str = ""
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    compared_with: tuple[str, ...] = ()
    hidden: bool = False

    @property
    def published(self) -> HubWeights | None:
        """Where its weights are published; None for a model that is embedded, random or elsewhere."""
        return self.weights if isinstance(self.weights, HubWeights) else None

    @property
    def text_mode(self) -> TextMode:
        """How the prompt reaches the network."""
        return self.network.text_mode
