"""A loaded model, and the cache that keeps the last one."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from opensora_demo.catalog import ModelSpec, RandomWeights, find_model
from opensora_demo.catalog.spec import Part
from opensora_demo.codecs.base import Codec, CodecConfig
from opensora_demo.families.base import Encoders, Family, PrepareStage, no_offload
from opensora_demo.families.build import adapter_for, build_family
from opensora_demo.messages import message
from opensora_demo.models.base import NetworkConfig
from opensora_demo.nn.abort import abortable
from opensora_demo.nn.attention import set_attention_kernel
from opensora_demo.nn.threads import use_threads
from opensora_demo.preview import PictureDecoder, first_channels, latent_to_rgb, tiny_pictures
from opensora_demo.request.events import Stage
from opensora_demo.request.video import Frames
from opensora_demo.runtime.fitted import fit
from opensora_demo.runtime.placement import Offloader, plan_placement
from opensora_demo.runtime.precision import halve, stored_dtype, wide_dtype
from opensora_demo.text.cache import EmbeddingCache
from opensora_demo.text.clip import ClipTextEncoder
from opensora_demo.text.labels import LabelEncoder
from opensora_demo.text.quantized import Bits, Quantizer, check_bits, quantized_bytes
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.weights.lora import add_lora, lora_names, loras_for
from opensora_demo.weights.options import DEFAULT_OPTIONS, WeightOptions
from opensora_demo.weights.reading import load_module, random_module, read_state
from opensora_demo.weights.store import PART_NAMES, Located, fitted_preview, locate, tiny_decoder

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBundle:
    """Everything `pipeline.generate` needs of one model. `prepare` puts what a stage needs on the device (the families
    call it for the network); `t5` is the encoder itself, whose tokens the explanation names."""

    spec: ModelSpec
    family: Family[Any]
    codec: Codec
    preview_matrix: Tensor
    device: torch.device
    prepare: PrepareStage = no_offload
    t5: T5TextEncoder | None = None
    tiny: PictureDecoder | None = None
    loras: tuple[str, ...] = ()  # that were added, as a clip's settings say them

    @torch.inference_mode()
    def pictures(self, latents: Tensor) -> list[Frames]:
        """Latents (b, c, t, h, w), clean or noisy, as pictures (t, h', w', 3) each: of their own size, or larger where
        there is a small decoder."""
        if self.tiny is not None:
            return tiny_pictures(latents, self.tiny)
        return [self.mapped(latent) for latent in latents]

    @torch.inference_mode()
    def mapped(self, latent: Tensor) -> Frames:
        """A latent (c, t, h, w) as it is: (t, h, w, 3), a colour for each position."""
        return latent_to_rgb(latent, self.preview_matrix)

    @property
    def threads(self) -> int:
        """How many batches are computed side by side, each on a thread of its own: see `nn.threads`."""
        return self.family.threads

    @property
    def codec_dtype(self) -> torch.dtype:
        return next(self.codec.parameters()).dtype


def pick_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


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
    use_threads(min(allowed, torch.get_num_threads()))
    return torch.get_num_threads()


def build_network(config: NetworkConfig) -> nn.Module:
    return config.build()


def build_codec(config: CodecConfig) -> Codec:
    return config.build()


def build_bundle(
    spec: ModelSpec,
    device: torch.device | None = None,
    options: WeightOptions = DEFAULT_OPTIONS,
    check: Callable[[], None] = lambda: None,
) -> ModelBundle:
    """Load the weights of `spec` (about a second for nano; published ones are mapped, and read when they are first
    used). `check` is called before each part; what it raises ends the load. Raises WeightsError."""
    return _Loader(spec, device or pick_device(), options, check).bundle()


class _Loader:
    """Reads the parts of one model and puts them together."""

    def __init__(
        self, spec: ModelSpec, device: torch.device, options: WeightOptions, check: Callable[[], None]
    ) -> None:
        self.spec, self.device, self.options, self.check = spec, device, options, check
        self.files = locate(spec, options)
        self.bits = t5_bits(spec, options)
        check_bits(self.bits)

    def bundle(self) -> ModelBundle:
        spec, options = self.spec, self.options
        t5, clip, network, codec = self.t5(), self.clip(), self.network(), self.codec()
        encoders = self.offloaded(t5, clip, network, codec) if spec.published else self.small_encoders(t5, clip)
        family = self.family(network, encoders)
        family.weaker = self.weaker()
        bundle = ModelBundle(
            spec=spec,
            family=family,
            codec=codec,
            t5=t5,
            preview_matrix=preview_matrix(spec, self.files, codec.latent_channels, options).to(self.device),
            device=self.device,
            prepare=encoders.prepare,
            tiny=load_tiny(spec, self.files, self.device, options),
            loras=lora_names(spec, options.loras),
        )
        fit(bundle, options.precision, options.cache_dir)
        return bundle

    def weaker(self) -> Family[Any] | None:
        """The weaker model of autoguidance, without its codec: it works on this one's latents."""
        if not self.spec.weaker:
            return None
        other = _Loader(find_model(self.spec.weaker), self.device, self.options, self.check)
        return other.family(other.network(), other.small_encoders(other.t5(), other.clip()))

    def family(self, network: nn.Module, encoders: Encoders) -> Family[Any]:
        family = build_family(self.spec, network, encoders)
        family.splits_batches = self.device.type == "cpu" and not self.spec.published
        return family

    def small_encoders(self, t5: T5TextEncoder | None, clip: ClipTextEncoder | None) -> Encoders:
        """Of a model whose parts are all where they compute."""
        return Encoders(text=t5, pooled=LabelEncoder(dict(self.spec.labels)) if self.spec.labels else clip)

    def t5(self) -> T5TextEncoder | None:
        if (text := self.spec.text) is None:
            return None
        t5 = self._load("text", lambda: T5TextEncoder(text, *self.files["tokenizer"]), T5TextEncoder.aliases)
        return abortable(t5)

    def clip(self) -> ClipTextEncoder | None:
        if (clip := self.spec.clip) is None:
            return None
        return self._load("clip", lambda: ClipTextEncoder(clip, *self.files["clip_tokenizer"]))

    def network(self) -> nn.Module:
        network = self._load("network", self.spec.network.build)
        set_attention_kernel(network, self.options.attention)
        for lora in loras_for(self.spec, self.options.loras):
            add_lora(network, lora)
        return abortable(network)

    def codec(self) -> Codec:
        codec = self._load("codec", self.spec.codec.build)
        if not self.spec.published:
            codec.prepare_for_cpu()
        return abortable(codec)

    def _load(self, part: Part, build: Callable[[], M], aliases: Mapping[str, str] | None = None) -> M:
        self.check()
        spec = self.spec
        published = spec.published is not None
        dtype = None if published else torch.float32
        if part in ("network", "codec") and not (published and self.device.type != "cpu"):
            dtype = wide_dtype(spec, self.device, self.options.precision)
        if isinstance(spec.weights, RandomWeights):
            module = random_module(build, spec.weights.seed).to(self.device)
            return halve(module) if dtype == torch.bfloat16 else module
        return load_module(
            build,
            self.files[part],
            message("weights.part_of", model=spec.id, part=PART_NAMES[part]),
            dtype=dtype,
            device=None if published else self.device,  # published ones come onto it stage by stage, and change there
            published=published,
            aliases=aliases,
        )

    def offloaded(
        self, t5: T5TextEncoder | None, clip: ClipTextEncoder | None, network: nn.Module, codec: Codec
    ) -> Encoders:
        """The encoders of a published model, which keep what they encoded, and what puts its parts on the device."""
        quantizer, t5_bytes = None, 0
        if t5 is not None and self.bits < 16:
            quantizer = Quantizer(t5, self.bits, self.device, stored_dtype(self.device))
            t5_bytes = quantized_bytes(t5, self.bits)
        moving = [m for m in (t5 if quantizer is None else None, clip) if m is not None]
        prepare = offloader(self.spec, self.device, moving, network, codec, t5_bytes, self.options).prepare

        def before() -> None:
            prepare("text")
            if quantizer is not None:
                quantizer()

        cache_dir = self.options.cache_dir
        cached: Any = {"device": self.device, "before": before, "folder": cache_dir and cache_dir / "text"}
        files = _identity(self.files)
        of_t5 = f"{files} {self.spec.text}" + (f" {self.bits} bits" if self.bits < 16 else "")
        return Encoders(
            text=None if t5 is None else EmbeddingCache(t5, of_t5, **cached),
            pooled=None if clip is None else EmbeddingCache(clip, f"{files} {self.spec.clip}", **cached),
            prepare=prepare,
        )


def load_tiny(spec: ModelSpec, found: Located, device: torch.device, options: WeightOptions) -> PictureDecoder | None:
    """The small decoder of a model that has one: of an embedded model it lies in the preview's file, of a published one
    it may be among the weights."""
    if spec.tiny is None:
        return None
    published = tiny_decoder(spec, options)
    files = found.get("preview") or ((published,) if published else ())
    if not files:
        return None
    dtype = stored_dtype(device) or torch.float32
    return load_module(spec.tiny.build, files, files[0].name, dtype=dtype, device=device, published=True)


def preview_matrix(spec: ModelSpec, found: Located, channels: int, options: WeightOptions) -> Tensor:
    """(c + 1, 3): the model's own file, one that was fitted on this machine, published numbers, or the first three
    channels as they are."""
    fitted = fitted_preview(spec, options)
    files = found.get("preview") or ((fitted,) if fitted.is_file() else ())
    if files:
        return read_state(files)["matrix"].float()
    return first_channels(channels) if spec.rgb is None else torch.tensor(spec.rgb)


def offloader(
    spec: ModelSpec,
    device: torch.device,
    encoders: Sequence[nn.Module],
    network: nn.Module,
    codec: nn.Module,
    t5_bytes: int,
    options: WeightOptions,
) -> Offloader:
    """How a published model's parts share the device: chosen by what they weigh there and the memory that is free, of
    which a T5 in few bits takes `t5_bytes`."""
    dtype = None if device.type == "cpu" else wide_dtype(spec, device, options.precision)
    parts: dict[Stage, Sequence[nn.Module]] = {"text": encoders, "denoise": [network], "decode": [codec]}
    sizes: dict[Stage, int] = {}
    room = None
    if device.type == "cuda":
        torch.cuda.empty_cache()  # of the model before
        width = 4 if dtype is None else dtype.itemsize
        sizes = {stage: width * sum(p.numel() for m in of for p in m.parameters()) for stage, of in parts.items()}
        room = torch.cuda.mem_get_info(device)[0] - t5_bytes
    placement, streamed = plan_placement(sizes, room, streamable(spec, options), options.placement)
    return Offloader(parts, device, placement, dtype, streamed)


def t5_bits(spec: ModelSpec, options: WeightOptions) -> Bits:
    """Of an entry's T5: as the options say, where it is a published one."""
    return options.t5_bits if spec.published and spec.text is not None else 16


def streamable(spec: ModelSpec, options: WeightOptions) -> frozenset[Stage]:
    """Stages whose layers may come and go. The STDiTs are small, and use weights outside of their layers' calls; a T5
    in few bits stays on the device."""
    stages: set[Stage] = {"text"} if t5_bits(spec, options) == 16 else set()
    return frozenset(stages | ({"denoise"} if adapter_for(spec.network).streamable else set()))


def _identity(found: Located) -> str:
    """Of the text encoders' files: their names, sizes and times."""
    parts: tuple[Part, ...] = ("text", "tokenizer", "clip", "clip_tokenizer")
    files = [file for part in parts for file in found.get(part, ())]
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


class Bundles:
    """Loaded models: of the published ones that which was asked for last, of the small ones every one. Safe to call
    from several threads. Runs take turns (`service.local`) and ask for their model in their turn: two published models
    are never in memory at once. What is done with each once it is loaded is `then`."""

    def __init__(
        self, options: WeightOptions = DEFAULT_OPTIONS, then: Callable[[ModelBundle], None] | None = None
    ) -> None:
        self.options = options
        self._then = then
        self._guard = threading.Lock()
        self._loaded: dict[str, ModelBundle] = {}

    def get(self, model_id: str, check: Callable[[], None] = lambda: None) -> ModelBundle:
        """`check` is as `build_bundle` has it. Raises RequestError for a name that the catalog does not know,
        WeightsError."""
        spec = find_model(model_id)
        with self._guard:
            if model_id not in self._loaded:
                if spec.published:
                    self._loaded = {k: b for k, b in self._loaded.items() if not b.spec.published}
                    gc.collect()  # hooks and modules name each other
                bundle = build_bundle(spec, options=self.options, check=check)
                if self._then is not None:
                    self._then(bundle)
                self._loaded[model_id] = bundle
            return self._loaded[model_id]
