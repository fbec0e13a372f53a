"""What a run has to compute and to hold, stage by stage: every part runs once on tensors without data."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from opensora_demo.catalog import ModelSpec, find_model
from opensora_demo.catalog.spec import Stored
from opensora_demo.codecs.base import Codec
from opensora_demo.families.base import Encoders, Family
from opensora_demo.families.build import adapter_for
from opensora_demo.request.events import Stage
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import VideoShape
from opensora_demo.runtime.cost.counter import Counter, bytes_of
from opensora_demo.runtime.precision import wide_dtype
from opensora_demo.text.clip import ClipTextEncoder
from opensora_demo.text.quantized import Bits, quantized_bytes
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.weights.options import Precision
from opensora_demo.weights.store import ASSETS

STAGES: tuple[Stage, ...] = ("text", "denoise", "decode")
KEPT = 256  # counts, of three numbers each
BUILT = 12  # families, networks and codecs, whose tensors have no data

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One stage: bytes of its weights, the most bytes beside them, and FLOPs."""

    weights_bytes: int
    peak_bytes: int
    flops: float

    @property
    def bytes(self) -> int:
        return self.weights_bytes + self.peak_bytes


def dtypes_of(spec: ModelSpec, device: torch.device, precision: Precision = "stored") -> dict[Stage, torch.dtype]:
    """What each stage computes in, as far as that is known before a small model is loaded and tried."""
    wide = wide_dtype(spec, device, precision)
    if spec.published is None:
        return {"text": torch.float32, "denoise": wide or torch.float32, "decode": wide or torch.float32}
    if device.type != "cpu":
        return dict.fromkeys(STAGES, wide or torch.bfloat16)
    return {
        "text": torch.bfloat16,
        "denoise": wide or dtype_named(spec.published.network_dtype),
        "decode": wide or dtype_named(spec.published.codec_dtype),
    }


def dtype_named(name: Stored) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _no_prompt(prompts: list[str]) -> Any:
    raise RuntimeError("a family that is only counted reads no prompt")


class WorkCounter:
    """Counts what runs take, each thing once: who asks for the same meanwhile waits for it. Counting takes a second or
    two for a published model, the first time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counts: OrderedDict[Hashable, Any] = OrderedDict()
        self._built: OrderedDict[Hashable, Any] = OrderedDict()

    def of(
        self,
        spec: ModelSpec,
        request: GenerationRequest,
        device: torch.device,
        bits: Bits,
        memory_bytes: int,
        precision: Precision = "stored",
    ) -> dict[Stage, Work]:
        """The stages of a run on a device of so much memory, T5 in so many bits."""
        dtypes, calls, shape = dtypes_of(spec, device, precision), self.calls(spec, request), request.shape
        batch = min(max(calls), spec.max_batch or max(calls))
        step = self.network(spec, request.shape, batch, dtypes["denoise"])
        flops = step.flops / batch * sum(calls)
        weights = step.weights_bytes
        if spec.weaker:
            weaker = self.network(find_model(spec.weaker), request.shape, 1, dtypes["denoise"])
            flops += weaker.flops * sum(self.weaker_calls(spec, request))
            weights += weaker.weights_bytes
        text = self.encoders(spec, dtypes["text"], bits)
        clip = self.decoder(spec, shape, dtypes["decode"], memory_bytes)
        behind = 3 * (request.total_frames - shape.frames) * shape.height_px * shape.width_px  # of other scenes
        return {
            "text": replace(text, flops=text.flops * request.scenes),
            "denoise": replace(step, flops=flops, weights_bytes=weights),
            "decode": replace(
                clip,
                flops=clip.flops * len(request.columns) * request.scenes,
                peak_bytes=clip.peak_bytes + 2 * behind,
            ),
        }

    def calls(self, spec: ModelSpec, request: GenerationRequest) -> tuple[int, ...]:
        """How many (clip, branch) pairs go through the network at each step of all scenes, asked of the family that
        will do it: that depends on the rules, the scales, and on whether frames are given."""
        family, (given, size) = self._family(spec), self._given(spec, request)
        later = family.calls(request, True, size, apart=True) if request.scenes > 1 else ()
        return family.calls(request, given, size) + later * (request.scenes - 1)

    def weaker_calls(self, spec: ModelSpec, request: GenerationRequest) -> tuple[int, ...]:
        """The same of the weaker model that a rule leads away from."""
        family, (given, size) = self._family(spec), self._given(spec, request)
        later = family.weaker_calls(request, True, size, apart=True) if request.scenes > 1 else ()
        return family.weaker_calls(request, given, size) + later * (request.scenes - 1)

    def _given(self, spec: ModelSpec, request: GenerationRequest) -> tuple[bool, tuple[int, int, int]]:
        """Whether frames are given, and the size of the latents."""
        s = request.shape
        return request.given, self._codec(spec).latent_size(s.frames, s.height_px, s.width_px)

    def network(self, spec: ModelSpec, shape: VideoShape, pairs: int, dtype: torch.dtype) -> Work:
        """One step with that many (clip, branch) pairs in a batch."""

        def count() -> Work:
            network = self._network(spec, dtype)
            codec = self._codec(spec)
            size = codec.latent_size(shape.frames, shape.height_px, shape.width_px)
            x = torch.empty(pairs, codec.latent_channels, *size, device="meta")
            tokens = 0 if spec.text is None else spec.text.max_tokens
            with Counter() as counter, counter.counting_once(*_blocks(network)):
                adapter_for(spec.network)(network).call_without_data(x, shape, tokens)
            return Work(weights_bytes=bytes_of(network), peak_bytes=counter.peak_bytes, flops=counter.flops)

        return self._once(("network", spec.network, spec.codec, spec.text, shape, pairs, dtype), count)

    def decoder(self, spec: ModelSpec, shape: VideoShape, dtype: torch.dtype, memory_bytes: int) -> Work:
        """One clip, decoded as on a device of so much memory."""

        def count() -> Work:
            codec = self._codec(spec, dtype)
            codec.memory_bytes = memory_bytes
            size = codec.latent_size(shape.frames, shape.height_px, shape.width_px)
            z = torch.empty(1, codec.latent_channels, *size, device="meta", dtype=dtype)
            decoders = [m for name, m in codec.named_modules() if name.split(".")[-1] == "decoder"]
            with Counter() as counter, counter.counting_once(*decoders):
                for part in codec.decode_chunks(z, shape.frames):
                    del part  # before the next is decoded, as the pipeline does
            frames = 3 * shape.frames * shape.height_px * shape.width_px  # uint8, in memory until the file is written
            peak = counter.peak_bytes + frames
            return Work(weights_bytes=bytes_of(codec), peak_bytes=peak, flops=counter.flops)

        return self._once(("decoder", spec.codec, shape, dtype, memory_bytes), count)

    def encoders(self, spec: ModelSpec, t5_dtype: torch.dtype, bits: Bits) -> Work:
        """A prompt and a negative one, through every encoder."""

        def count() -> Work:
            tokenizer = ASSETS / "nano" / "tokenizer.json"  # any will do: ids have no data here
            text, clip = spec.text, spec.clip
            parts: list[Work] = []
            if text is not None:
                t5 = _on_meta(lambda: T5TextEncoder(text, tokenizer), t5_dtype)
                size = bytes_of(t5) if bits == 16 else quantized_bytes(t5, bits, t5_dtype.itemsize)
                parts.append(_encoding(t5, t5.model, text.max_tokens, size))
            if clip is not None:
                pooled = _on_meta(lambda: ClipTextEncoder(clip, tokenizer), torch.float32)
                parts.append(_encoding(pooled, pooled.encode_ids, clip.max_tokens, bytes_of(pooled)))
            return Work(
                weights_bytes=sum(part.weights_bytes for part in parts),
                peak_bytes=max((part.peak_bytes for part in parts), default=0),  # labels need no encoder
                flops=sum(part.flops for part in parts),
            )

        return self._once(("encoders", spec.text, spec.clip, t5_dtype, bits), count)

    # --- what is kept

    def _once(self, key: Hashable, count: Callable[[], Work]) -> Work:
        with self._lock:
            if key not in self._counts:
                with torch.inference_mode():
                    self._counts[key] = count()
            return _recent(self._counts, key, KEPT)

    def _family(self, spec: ModelSpec) -> Family[Any]:
        """The family of an entry around a network without data."""

        def build() -> Family[Any]:
            adapter = adapter_for(spec.network)(self._network(spec))
            return adapter.family(spec, Encoders(text=_no_prompt, pooled=_no_prompt))

        return self._once_built(("family", spec.network, spec.sampler), build)

    def _network(self, spec: ModelSpec, dtype: torch.dtype = torch.float32) -> nn.Module:
        return self._once_built(("network", spec.network, dtype), lambda: _on_meta(spec.network.build, dtype))

    def _codec(self, spec: ModelSpec, dtype: torch.dtype = torch.float32) -> Codec:
        return self._once_built(("codec", spec.codec, dtype), lambda: _on_meta(spec.codec.build, dtype))

    def _once_built(self, key: Hashable, build: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._built:
                self._built[key] = build()
            return _recent(self._built, key, BUILT)


def _recent(kept: OrderedDict[Hashable, T], key: Hashable, most: int) -> T:
    """The value, which from now on is the newest of `most`."""
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The members of its lists of modules."""
    return [m for part in network.modules() if isinstance(part, nn.ModuleList) for m in part]


M = TypeVar("M", bound=nn.Module)


def _on_meta(build: Callable[[], M], dtype: torch.dtype) -> M:
    with torch.device("meta"):
        return build().to(dtype).eval().requires_grad_(False)


def _encoding(module: nn.Module, encode: Callable[[Tensor], Any], tokens: int, weights_bytes: int) -> Work:
    """Two prompts of the greatest length."""
    ids = torch.zeros(2, tokens, dtype=torch.long, device="meta")
    with Counter() as counter, counter.counting_once(*_blocks(module)):
        encode(ids)
    return Work(weights_bytes=weights_bytes, peak_bytes=counter.peak_bytes, flops=counter.flops)
