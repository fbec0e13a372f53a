"""What a run takes, counted before it starts: every part runs once on tensors that have shapes and no data.

FLOPs are torch's count (two for a multiplication and an addition), memory is the most bytes that tensors hold at once.
Seconds are FLOPs over what this device was seen to do: in earlier runs of the same model, else in one matrix product.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop

from opensora_demo.bundle import Network, build_codec, build_network, pick_device, stored_dtype, streamable, t5_bits
from opensora_demo.catalog import ModelSpec
from opensora_demo.catalog.spec import HubWeights
from opensora_demo.codecs.hunyuan import HunyuanConfig
from opensora_demo.errors import DeviceError
from opensora_demo.memory import total_bytes
from opensora_demo.models.dit import DiT
from opensora_demo.models.mmdit import MMDiT
from opensora_demo.models.stdit import STDiT
from opensora_demo.models.stdit2 import STDiT2
from opensora_demo.placement import plan_placement
from opensora_demo.store import ASSETS, missing_places
from opensora_demo.text.clip import ClipTextEncoder
from opensora_demo.text.quantized import Bits, quantized_bytes
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.types import GenerationRequest, Limits, Size, Stage, VideoShape

STAGES: tuple[Stage, ...] = ("text", "denoise", "decode")
PROCESS_BYTES = 650_000_000  # Python, torch and Gradio themselves; on a GPU about as much for its context
_ATTENTION = torch.ops.aten.scaled_dot_product_attention
# The share of a streamed network's weights that is held at once: two layers, and what is outside of them.
_HELD: Mapping[Stage, float] = {"text": 1 / 9, "denoise": 1 / 30}
_UNSEEN = 0.5  # of a large matrix product's rate, until a run of the model has been seen
_PEAK = 4.0  # times that rate no machine is faster


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One stage: bytes of its weights, the most bytes beside them, and FLOPs."""

    weights_bytes: int
    peak_bytes: int
    flops: float

    @property
    def bytes(self) -> int:
        return self.weights_bytes + self.peak_bytes


@dataclass(frozen=True, slots=True)
class Machine:
    """Where runs take place: its name and memory, all of it and what is free."""

    name: str
    total_bytes: int


class _Counter(TorchDispatchMode):
    """FLOPs of what runs within, and the most bytes that tensors made there hold at once. (torch's FlopCounterMode
    follows modules besides, and takes three times as long.)"""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0
        self.peak_bytes = self._now = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket is _ATTENTION:  # fused on every device: the table of scores is never held
            q, k, v = args[:3]
            self.flops += sdpa_flop(q, k, v)
            return self._made(q.new_empty(*q.shape[:-1], v.shape[-1]))
        count = flop_registry.get(func._overloadpacket)
        if count is None and func._can_decompose():
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        for given in (*args, *kwargs.values()):
            for leaf in given if isinstance(given, tuple | list) else (given,):
                if isinstance(leaf, Tensor):  # not made here, nor are its views
                    self._held.setdefault(leaf.untyped_storage()._cdata, 0)
        out = func(*args, **kwargs)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        return self._made(out)

    def _made(self, out: Any) -> Any:
        for leaf in out if isinstance(out, tuple | list) else (out,):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if (key := storage._cdata) not in self._held:
                    self._held[key] = storage.nbytes()
                    self._now += self._held[key]
                    self.peak_bytes = max(self.peak_bytes, self._now)
                    weakref.finalize(storage, self._freed, key)
        return out

    def count_once(self, module: nn.Module) -> None:
        """Later calls of a module with one input of a shape seen before (tiles, chunks) are counted as the first."""
        run = module.forward
        seen: dict[torch.Size, tuple[torch.Size, float, int]] = {}

        def forward(x: Tensor) -> Tensor:
            if x.shape in seen:
                shape, flops, extra = seen[x.shape]
                self.flops += flops
                self.peak_bytes = max(self.peak_bytes, self._now + extra)
                return x.new_empty(shape)
            flops, held, peak = self.flops, self._now, self.peak_bytes
            self.peak_bytes = held
            out: Tensor = run(x)
            seen[x.shape] = out.shape, self.flops - flops, self.peak_bytes - held
            self.peak_bytes = max(peak, self.peak_bytes)
            return out

        module.forward = forward

    def _freed(self, key: int) -> None:
        self._now -= self._held.pop(key, 0)


def bytes_of(module: nn.Module) -> int:
    """Of its weights and buffers, shared ones once."""
    return sum(t.nbytes for t in {id(t): t for t in (*module.parameters(), *module.buffers())}.values())


def _meta(build: Any, dtype: torch.dtype) -> Any:
    with torch.device("meta"):
        return build().to(dtype).eval().requires_grad_(False)


def forward_on_meta(network: Network, spec: ModelSpec, shape: VideoShape, x: Tensor) -> Tensor:
    """One forward pass of a network on the meta device for latents x (b, c, t, h, w), with the longest prompt."""
    count = len(x)
    one = torch.ones(count, device="meta")
    if isinstance(network, DiT):
        return network(x, one, torch.empty(count, network.cfg.text_channels, device="meta"))
    assert spec.text is not None
    y = torch.empty(count, spec.text.max_tokens, spec.text.width, device="meta")
    size: dict[str, float] = {"height_px": shape.height_px, "width_px": shape.width_px}
    match network:
        case MMDiT():
            cond = torch.empty(count, 1 + x.shape[1], *x.shape[2:], device="meta")
            pooled = torch.empty(count, network.cfg.pooled_channels, device="meta")
            return network(x, one, y, pooled, cond=cond if network.cfg.cond_embed else None)
        case STDiT():
            return network(x, one, network.project_text(y))
        case STDiT2():
            aspect = shape.height_px / shape.width_px
            return network(x, one, network.project_text(y), fps=one, frames=one, aspect=aspect, **size)
        case _:
            return network(x, one, network.project_text(y), fps=one, **size)


@lru_cache(maxsize=256)
@torch.inference_mode()
def _denoise(spec: ModelSpec, shape: VideoShape, pairs: int, dtype: torch.dtype) -> Work:
    network = _meta(lambda: build_network(spec.network), dtype)
    codec = _meta(lambda: build_codec(spec.codec), dtype)
    size = codec.latent_size(shape.frames, shape.height_px, shape.width_px)
    x = torch.empty(pairs, codec.latent_channels, *size, device="meta")
    with _Counter() as found:
        forward_on_meta(network, spec, shape, x)
    return Work(weights_bytes=bytes_of(network), peak_bytes=found.peak_bytes, flops=found.flops)


@lru_cache(maxsize=256)
@torch.inference_mode()
def _decode(spec: ModelSpec, shape: VideoShape, dtype: torch.dtype) -> Work:
    codec = _meta(lambda: build_codec(spec.codec), dtype)
    size = codec.latent_size(shape.frames, shape.height_px, shape.width_px)
    z = torch.empty(1, codec.latent_channels, *size, device="meta", dtype=dtype)
    with _Counter() as found:
        for name, module in codec.named_modules():
            if name.split(".")[-1] == "decoder":
                found.count_once(module)
        for _ in codec.decode_chunks(z, shape.frames):
            pass
    frames = 3 * shape.frames * shape.height_px * shape.width_px  # as uint8, in memory until the file is written
    return Work(weights_bytes=bytes_of(codec), peak_bytes=found.peak_bytes + 2 * frames, flops=found.flops)


@lru_cache(maxsize=32)
@torch.inference_mode()
def _text(spec: ModelSpec, t5_dtype: torch.dtype, bits: Bits) -> Work:
    tokenizer = ASSETS / "nano" / "tokenizer.json"  # any will do: ids have no data here
    parts: list[Work] = []
    for config, build, dtype in (
        (spec.text, lambda: T5TextEncoder(spec.text, tokenizer), t5_dtype),  # type: ignore[arg-type]
        (spec.clip, lambda: ClipTextEncoder(spec.clip, tokenizer), torch.float32),  # type: ignore[arg-type]
    ):
        if config is not None:
            encoder = _meta(build, dtype)
            ids = torch.zeros(2, config.max_tokens, dtype=torch.long, device="meta")
            with _Counter() as found:
                (encoder.encode_ids if config is spec.clip else encoder.model)(ids)
            few = bits < 16 and config is spec.text
            size = quantized_bytes(encoder, bits, dtype.itemsize) if few else bytes_of(encoder)
            parts.append(Work(weights_bytes=size, peak_bytes=found.peak_bytes, flops=found.flops))
    return Work(
        weights_bytes=sum(part.weights_bytes for part in parts),
        peak_bytes=max(part.peak_bytes for part in parts),
        flops=sum(part.flops for part in parts),
    )


def dtypes_of(spec: ModelSpec, device: torch.device) -> dict[Stage, torch.dtype]:
    """What each stage computes in."""
    if not isinstance(spec.weights, HubWeights):
        return dict.fromkeys(STAGES, torch.float32)
    if (kept := stored_dtype(device)) is not None:
        return dict.fromkeys(STAGES, kept)
    w = spec.weights
    return {"text": torch.bfloat16, "denoise": getattr(torch, w.network_dtype), "decode": getattr(torch, w.codec_dtype)}


def pairs_of(spec: ModelSpec, request: GenerationRequest) -> int:
    """(clip, branch) pairs of one step: two for each clip that is guided, three with given frames and two scales."""
    given = request.reference is not None or request.last_frame is not None
    most = 3 if given and spec.limits.image_guidance is not None else 2
    return sum(1 if scale in (0, 1) and most == 2 else most for scale, _ in request.columns)


_counting = threading.Lock()


def count_work(spec: ModelSpec, request: GenerationRequest, device: torch.device) -> dict[Stage, Work]:
    """The stages of a run. Counting takes a second or two for a published model, the first time; who asks for the same
    meanwhile waits for it."""
    dtypes, pairs = dtypes_of(spec, device), pairs_of(spec, request)
    batch = min(pairs, spec.max_batch or pairs)
    with _counting:
        step = _denoise(spec, request.shape, batch, dtypes["denoise"])
        clip = _decode(spec, request.shape, dtypes["decode"])
        text = _text(spec, dtypes["text"], t5_bits(spec))
    return {
        "text": text,
        "denoise": replace(step, flops=step.flops / batch * pairs * request.steps),
        "decode": replace(clip, flops=clip.flops * len(request.columns)),
    }


# --- the machine


def machine_of(device: torch.device) -> Machine:
    """The device's name and memory."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
    return Machine(name, total_bytes(device))


_seen: dict[tuple[str, Stage, str], float] = {}


def remember(spec: ModelSpec, request: GenerationRequest, device: torch.device, seconds: Mapping[str, float]) -> None:
    """A run took so many seconds for each stage: the next estimate of this model goes by it. What went faster than the
    machine multiplies was not computed (a prompt that was kept), and says nothing."""
    dtypes = dtypes_of(spec, device)
    for stage, work in count_work(spec, request, device).items():
        if (
            seconds.get(stage, 0) > 0
            and 0 < work.flops < _PEAK * product_rate(device.type, dtypes[stage]) * seconds[stage]
        ):
            _seen[spec.id, stage, device.type] = work.flops / seconds[stage]


@lru_cache(maxsize=8)
def product_rate(kind: str, dtype: torch.dtype) -> float:
    """FLOP/s of a product of 1024 x 1152 by 1152 x 4608, the best of four."""
    a, b = torch.randn(1024, 1152, device=kind, dtype=dtype), torch.randn(1152, 4608, device=kind, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        begin = time.perf_counter()
        a @ b
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * 1024 * 1152 * 4608 / best


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes that a run holds at its fullest moment, of those that there are, and the seconds it may take."""

    needed_bytes: int
    machine: Machine
    seconds: float

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.machine.total_bytes


def estimate(spec: ModelSpec, request: GenerationRequest, device: torch.device | None = None) -> Estimate:
    device = device or pick_device()
    work, dtypes = count_work(spec, request, device), dtypes_of(spec, device)
    seconds = 0.0
    for stage, part in work.items():
        rate = _seen.get((spec.id, stage, device.type)) or _UNSEEN * product_rate(device.type, dtypes[stage])
        seconds += part.flops / rate
    machine = machine_of(device)
    needed = _needed(spec, work, device, machine.total_bytes)
    if isinstance(spec.codec, HunyuanConfig):
        s, dtype = request.shape, dtypes["decode"]
        size = spec.codec.latent_size(s.frames, s.height_px, s.width_px)
        if spec.codec.too_large(size, dtype.itemsize, machine.total_bytes):
            tiling = replace(spec.codec.tiling, temporal=True)
            tiled = _decode(replace(spec, codec=replace(spec.codec, tiling=tiling)), s, dtype)
            needed["decode"] += tiled.peak_bytes - work["decode"].peak_bytes
    return Estimate(max(needed.values()), machine, seconds)


def _needed(spec: ModelSpec, work: Mapping[Stage, Work], device: torch.device, there: int) -> dict[Stage, int]:
    """Bytes of each stage, with what stays in memory from the others."""
    weights = {stage: part.weights_bytes for stage, part in work.items()}
    base, can_stream = PROCESS_BYTES, frozenset[Stage]()
    placement, streamed = "in turn", frozenset[Stage]()
    if isinstance(spec.weights, HubWeights):
        if t5_bits(spec) < 16:  # it stays
            base += weights["text"]
            weights["text"] = 0
        can_stream = streamable(spec)
        if device.type == "cuda":
            placement, streamed = plan_placement(weights, there - base, can_stream)
    needed: dict[Stage, int] = {}
    for stage, part in work.items():
        held = sum(weights.values()) if placement == "together" else weights[stage]
        whole = base + held + part.peak_bytes
        if stage in streamed or (device.type == "cpu" and stage in can_stream and whole > there):
            whole -= round((1 - _HELD[stage]) * weights[stage])  # mapped pages and streamed layers come and go
        needed[stage] = whole
    return needed


def download_bytes(spec: ModelSpec) -> int:
    """About how much a download would fetch: the weights that are not here, in the types they are published in."""
    if not isinstance(spec.weights, HubWeights) or not (missing := missing_places(spec)):
        return 0
    w, shape = spec.weights, smallest_shape(spec.limits)
    sizes = {
        w.network[0]: _denoise(spec, shape, 1, getattr(torch, w.network_dtype)).weights_bytes,
        w.codec[0]: _decode(spec, shape, getattr(torch, w.codec_dtype)).weights_bytes,
        w.text[0]: _text(spec, torch.bfloat16, 16).weights_bytes,
    }
    return sum(sizes.get(place, 0) for place in missing)


def smallest_shape(limits: Limits) -> VideoShape:
    """The quickest clip to count."""
    return min((shape for shape, _ in _clips(limits)), key=_volume)


def duration(seconds: float) -> str:
    """A length of time as one says it: "0.4 s", "50 s", "7 min", "3 h"."""
    if seconds < 90:
        return f"{seconds:.1g} s" if seconds < 1 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def in_words(found: Estimate) -> str:
    """What a run takes, in a sentence."""
    need, have = found.needed_bytes / 1e9, found.machine.total_bytes / 1e9
    return f"About {duration(found.seconds)} and {short(need)} GB of {short(have)} GB here"


def short(number: float) -> str:
    """Two figures, whole from 10 on."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def nearest_fit(
    spec: ModelSpec, request: GenerationRequest, device: torch.device | None = None
) -> GenerationRequest | None:
    """The largest clip (by pixels times frames) of the asked aspect that fits where the asked one does not; the
    smallest of all where none of that aspect does."""
    device = device or pick_device()
    limits, size = spec.limits, request.size or spec.limits.sizes[0]
    room, volume = machine_of(device).total_bytes, _volume(request.shape)

    def smaller(shape: VideoShape, of: Size) -> GenerationRequest:
        return replace(request, shape=shape, size=of if request.size is not None else None)

    least = smaller(*min(_clips(limits), key=lambda clip: _volume(clip[0])))
    if not estimate(spec, least, device).fits:  # counting the others would take long
        return None
    work, tried = count_work(spec, request, device), volume
    for shape, of in sorted(_clips(limits), key=lambda clip: -_volume(clip[0])):
        likely = max(part.peak_bytes for part in work.values()) * _volume(shape) / tried
        if of.aspect != size.aspect or _volume(shape) >= volume or likely > 1.1 * room:
            continue
        if estimate(spec, found := smaller(shape, of), device).fits:
            return found
        work, tried = count_work(spec, found, device), _volume(shape)
    return least if _volume(least.shape) < volume else None


def _clips(limits: Limits) -> list[tuple[VideoShape, Size]]:
    """Every length at every size."""
    return [
        (VideoShape(frames=frames, height_px=size.height_px, width_px=size.width_px), size)
        for size in limits.sizes
        for frames in limits.frames
    ]


def _volume(shape: VideoShape) -> int:
    return shape.frames * shape.height_px * shape.width_px


def check_fits(spec: ModelSpec, request: GenerationRequest, device: torch.device | None = None) -> None:
    """Raises DeviceError naming the memory that is needed, that there is, and the nearest setting that fits."""
    found = estimate(spec, request, device)
    if found.fits:
        return
    need, have = found.needed_bytes / 1e9, found.machine.total_bytes / 1e9
    sentence = f"this needs about {need:.3g} GB, and {found.machine.name} has {have:.3g}"
    if (smaller := nearest_fit(spec, request, device)) is None:
        raise DeviceError(f"{sentence}; no clip of {spec.id} fits here")
    s = smaller.shape
    raise DeviceError(f"{sentence}; {s.frames} frames of {s.width_px} x {s.height_px} would fit")
