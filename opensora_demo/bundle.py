"""A loaded model, and the cache that keeps the last one."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, assert_never

import torch
from torch import Tensor, nn

from opensora_demo.catalog import ModelSpec, RandomWeights, find_model
from opensora_demo.catalog.spec import CodecConfig, HubWeights, NetworkConfig, Part
from opensora_demo.codecs.base import Codec
from opensora_demo.codecs.dc_ae import DcAe, DcAeConfig
from opensora_demo.codecs.hunyuan import HunyuanConfig, HunyuanVAE
from opensora_demo.codecs.image_vae import ImageVAE, ImageVaeConfig
from opensora_demo.codecs.image_vae import published_name as image_vae_name
from opensora_demo.codecs.taehv import Taehv
from opensora_demo.codecs.taehv import published_name as tiny_name
from opensora_demo.codecs.vae_v13 import VaeV13, VaeV13Config
from opensora_demo.codecs.video_vae import VideoVAE, VideoVaeConfig
from opensora_demo.errors import WeightsError
from opensora_demo.families.base import Family, PooledEncoder, TokenEncoder, Use, unmoved
from opensora_demo.families.dit import DiTFamily
from opensora_demo.families.mmdit import MMDiTFamily
from opensora_demo.families.stdit import STDiTFamily
from opensora_demo.lora import add_lora, wanted_loras
from opensora_demo.models.dit import DiT, DiTConfig
from opensora_demo.models.mmdit import MMDiT, MMDiTConfig
from opensora_demo.models.stdit import STDiT, STDiTConfig
from opensora_demo.models.stdit2 import STDiT2, STDiT2Config
from opensora_demo.models.stdit3 import STDiT3, STDiT3Config
from opensora_demo.models.stdit3_v13 import STDiT3V13, STDiT3V13Config
from opensora_demo.placement import Placed, plan_placement
from opensora_demo.preview import first_channels, latent_to_rgb, tiny_pictures
from opensora_demo.sampling.config import IddpmConfig, RectifiedFlowConfig
from opensora_demo.store import PART_NAMES, Located, fitted_preview, locate, tiny_decoder
from opensora_demo.text.cache import EmbeddingCache, cache_folder
from opensora_demo.text.clip import ClipTextEncoder
from opensora_demo.text.clip import published_name as clip_name
from opensora_demo.text.quantized import Bits, Quantizer, quantized_bytes, wanted_bits
from opensora_demo.text.t5 import ALIASES as T5_ALIASES
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.text.t5 import published_name as t5_name
from opensora_demo.types import Frames, Stage
from opensora_demo.weights import Rename, load_module, random_module, read_state

Network = DiT | STDiT | STDiT2 | STDiT3 | STDiT3V13 | MMDiT
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBundle:
    """Everything `pipeline.generate` needs of one model. `use` puts what a stage needs on the device (the families do
    it for the network)."""

    spec: ModelSpec
    family: Family
    codec: Codec
    preview_matrix: Tensor
    device: torch.device
    use: Use = unmoved
    tiny: Taehv | None = None

    def preview(self, latent: Tensor) -> Frames:
        """A clean latent (c, t, h, w) as pictures (t, h', w', 3): its own size, or larger where there is a small
        decoder."""
        if self.tiny is not None:
            return tiny_pictures(latent, self.tiny)
        return latent_to_rgb(latent, self.preview_matrix)

    @property
    def codec_dtype(self) -> torch.dtype:
        return next(self.codec.parameters()).dtype  # type: ignore[attr-defined]


def pick_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def stored_dtype(device: torch.device) -> torch.dtype | None:
    """What published weights are held in: bfloat16 on a GPU, as upstream runs them; on a CPU as they are stored."""
    return None if device.type == "cpu" else torch.bfloat16


def fit_threads() -> int:
    """Use as many threads as this process may really run on: its CPU affinity, and a container's CPU quota.

    torch counts the cores of the host; on a shared host more threads than the quota allows run far slower than fewer.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        pass
    torch.set_num_threads(min(allowed, torch.get_num_threads()))
    return torch.get_num_threads()


def build_network(config: NetworkConfig) -> Network:
    match config:
        case DiTConfig():
            return DiT(config)
        case STDiTConfig():
            return STDiT(config)
        case STDiT2Config():
            return STDiT2(config)
        case STDiT3Config():
            return STDiT3(config)
        case STDiT3V13Config():
            return STDiT3V13(config)
        case MMDiTConfig():
            return MMDiT(config)
        case never:
            assert_never(never)


def build_codec(config: CodecConfig) -> nn.Module:
    """A module that is a Codec."""
    match config:
        case ImageVaeConfig():
            return ImageVAE(config)
        case VideoVaeConfig():
            return VideoVAE(config)
        case VaeV13Config():
            return VaeV13(config)
        case HunyuanConfig():
            return HunyuanVAE(config)
        case DcAeConfig():
            return DcAe(config)
        case never:
            assert_never(never)


def build_family(
    spec: ModelSpec, network: Network, text: TokenEncoder | None, clip: PooledEncoder | None, use: Use = unmoved
) -> Family:
    """The conventions of a network's version around it. Raises WeightsError where the entry lacks an encoder."""
    match network:
        case DiT() if clip is not None and isinstance(spec.sampler, IddpmConfig):
            return DiTFamily(clip, network, spec.sampler, max_batch=spec.max_batch, use=use)
        case STDiT() | STDiT2() | STDiT3() | STDiT3V13() if text is not None:
            return STDiTFamily(
                text,
                network,
                spec.sampler,
                aesthetic_score=spec.aesthetic_score,
                image_fps=spec.image_fps,
                max_batch=spec.max_batch,
                use=use,
            )
        case MMDiT() if text is not None and clip is not None and isinstance(spec.sampler, RectifiedFlowConfig):
            return MMDiTFamily(text, clip, network, spec.sampler, max_batch=spec.max_batch, use=use)
        case _:
            raise WeightsError(f"the entry {spec.id} does not name the encoders and the sampler its network needs")


def build_bundle(spec: ModelSpec, device: torch.device | None = None) -> ModelBundle:
    """Load the weights of `spec` (about a second for nano; published ones are mapped, and read when they are first
    used). Raises WeightsError."""
    device = device or pick_device()
    found = locate(spec)
    hub = isinstance(spec.weights, HubWeights)
    bits = t5_bits(spec)

    def load(part: Part, build: Callable[[], M], rename: Rename | None = None, **options: Any) -> M:
        if isinstance(spec.weights, RandomWeights):
            return random_module(build, spec.weights.seed).to(device)
        return load_module(
            build,
            found[part],
            f"{spec.id} {PART_NAMES[part]}",
            dtype=None if hub else torch.float32,
            device=None if hub else device,  # published ones are placed stage by stage
            rename=rename if hub else None,
            **options,
        )

    text, clip = spec.text, spec.clip
    t5 = clip_model = None
    if text is not None:
        t5 = load("text", lambda: T5TextEncoder(text, *found["tokenizer"]), t5_name, aliases=T5_ALIASES)
    if clip is not None:
        clip_model = load("clip", lambda: ClipTextEncoder(clip, *found["clip_tokenizer"]), clip_name)
    network = load("network", lambda: build_network(spec.network))
    for lora in wanted_loras(spec):
        add_lora(network, lora)
    codec = load(
        "codec",
        lambda: build_codec(spec.codec),
        image_vae_name if isinstance(spec.codec, ImageVaeConfig) else None,
    )
    if isinstance(codec, VideoVAE) and not hub:  # it copies the weights, and pays for small models only
        codec.spatial_vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    use: Use = unmoved
    tokens: TokenEncoder | None = t5
    pooled: PooledEncoder | None = clip_model
    if hub:
        quantizer = None if t5 is None or bits == 16 else Quantizer(t5, bits, device, stored_dtype(device))
        encoders = [m for m in (t5 if quantizer is None else None, clip_model) if m is not None]
        kept = 0 if t5 is None or quantizer is None else quantized_bytes(t5, bits)
        use = place(spec, device, encoders, network, codec, kept).use

        def before() -> None:
            use("text")
            if quantizer is not None:
                quantizer()

        options: Any = {"device": device, "before": before, "folder": cache_folder() / "text"}
        files = _identity(found)
        told = f"{files} {text}" if bits == 16 else f"{files} {text} {bits} bits"
        tokens = None if t5 is None else EmbeddingCache(t5, told, **options)
        pooled = None if clip_model is None else EmbeddingCache(clip_model, f"{files} {clip}", **options)
    channels: int = codec.latent_channels  # type: ignore[assignment]
    matrix = preview_matrix(spec, found, channels)
    return ModelBundle(
        spec=spec,
        family=build_family(spec, network, tokens, pooled, use),
        codec=codec,  # type: ignore[arg-type]
        preview_matrix=matrix.to(device),
        device=device,
        use=use,
        tiny=load_tiny(spec, device),
    )


def load_tiny(spec: ModelSpec, device: torch.device) -> Taehv | None:
    """The small decoder of a model that has one, where its file is there."""
    if spec.tiny is None or (file := tiny_decoder(spec)) is None:
        return None
    tiny = spec.tiny
    dtype = stored_dtype(device) or torch.float32
    return load_module(lambda: Taehv(tiny), (file,), file.name, dtype=dtype, device=device, rename=tiny_name)


def preview_matrix(spec: ModelSpec, found: Located, channels: int) -> Tensor:
    """(c + 1, 3): the model's own file, one that was fitted on this machine, published numbers, or the first three
    channels as they are."""
    files = found.get("preview") or ((fitted_preview(spec),) if fitted_preview(spec).is_file() else ())
    if files:
        return read_state(files)["matrix"].float()
    return first_channels(channels) if spec.rgb is None else torch.tensor(spec.rgb)


def place(
    spec: ModelSpec,
    device: torch.device,
    encoders: Sequence[nn.Module],
    network: nn.Module,
    codec: nn.Module,
    kept: int,
) -> Placed:
    """How a published model's parts share the device: chosen by what they weigh there and the memory that is free, of
    which `kept` bytes are taken by a T5 in few bits."""
    dtype = stored_dtype(device)
    parts: dict[Stage, Sequence[nn.Module]] = {"text": encoders, "denoise": [network], "decode": [codec]}
    sizes: dict[Stage, int] = {}
    room = None
    if device.type == "cuda":
        torch.cuda.empty_cache()  # of the model before
        width = 2 if dtype is not None else 4
        sizes = {stage: width * sum(p.numel() for m in of for p in m.parameters()) for stage, of in parts.items()}
        room = torch.cuda.mem_get_info(device)[0] - kept
    placement, streamed = plan_placement(sizes, room, streamable(spec))
    return Placed(parts, device, placement, dtype, streamed)


def t5_bits(spec: ModelSpec) -> Bits:
    """Of an entry's T5: what was asked for, where it is a published one. Raises WeightsError."""
    return wanted_bits() if isinstance(spec.weights, HubWeights) and spec.text is not None else 16


def streamable(spec: ModelSpec) -> frozenset[Stage]:
    """Stages whose layers may come and go. The STDiTs are small, and use weights outside of their layers' calls; a T5
    in few bits stays on the device."""
    stages: set[Stage] = {"text"} if t5_bits(spec) == 16 else set()
    return frozenset(stages | ({"denoise"} if isinstance(spec.network, MMDiTConfig) else set()))


def _identity(found: Located) -> str:
    """Of the text encoders' files: their names, sizes and times."""
    parts: tuple[Part, ...] = ("text", "tokenizer", "clip", "clip_tokenizer")
    files = [file for part in parts for file in found.get(part, ())]
    told = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(told).encode()).hexdigest()


class Bundles:
    """Loaded models: of the published ones that which was asked for last, of the small ones every one. Safe to call
    from several threads. A run holds `device` from before it asks for its model until it ends: runs take turns, and
    two published models are never in memory at once."""

    def __init__(self) -> None:
        self.device = threading.Lock()
        self._guard = threading.Lock()
        self._loaded: dict[str, ModelBundle] = {}

    def get(self, model_id: str) -> ModelBundle:
        """Raises RequestError for a name that the catalog does not know, WeightsError."""
        spec = find_model(model_id)
        with self._guard:
            if model_id not in self._loaded:
                if isinstance(spec.weights, HubWeights):
                    self._loaded = {k: b for k, b in self._loaded.items() if not isinstance(b.spec.weights, HubWeights)}
                    gc.collect()  # hooks and modules name each other
                self._loaded[model_id] = build_bundle(spec)
            return self._loaded[model_id]
