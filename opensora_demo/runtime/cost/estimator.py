"""What a run takes on a machine, before it starts: the seconds it lasts, the bytes it holds, and whether it fits.

Seconds are FLOPs over what this device was seen to do: in earlier runs of the same model, else in one matrix product.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from opensora_demo.catalog import ModelSpec
from opensora_demo.errors import DeviceError, OutOfMemory
from opensora_demo.memory import total_bytes
from opensora_demo.messages import Param, message
from opensora_demo.request.events import Stage
from opensora_demo.request.limits import Limits, Size
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import VideoShape
from opensora_demo.runtime.bundle import pick_device, streamable, t5_bits
from opensora_demo.runtime.cost.work import Work, WorkCounter, dtypes_of
from opensora_demo.runtime.placement import plan_placement
from opensora_demo.runtime.precision import product_rate
from opensora_demo.weights.options import DEFAULT_OPTIONS, WeightOptions

PROCESS_BYTES = 650_000_000  # Python, torch and Gradio themselves; on a GPU about as much for its context
# The share of a streamed network's weights that is held at once: two layers, and what is outside of them.
_HELD: Mapping[Stage, float] = {"text": 1 / 9, "denoise": 1 / 30}
# Until a run of the model has been seen, this share of a large matrix product's rate: a guess, good within a factor of
# two or three. The runs of docs/costs.md on two CPU cores came to 150 to 175 GFLOP/s in a transformer's step in float32
# (1.0, 1.1, 1.2, nano), and to twice that in a VAE.
_UNSEEN = 0.5
# Times that rate nothing is computed. A convolution may be counted with 2.25 times the multiplications it does (Lavin &
# Gray, "Fast algorithms for convolutional neural networks", 2016), and what was measured in a busy moment is too low.
_PEAK = 4.0
COUNTER = WorkCounter()  # of all estimators that are given no other


@dataclass(frozen=True, slots=True)
class Machine:
    """Where runs take place: its name, its memory in all, and the device there."""

    name: Param
    total_bytes: int
    device: torch.device

    @classmethod
    def here(cls, device: torch.device | None = None) -> Machine:
        device = device or pick_device()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else message("device.this_machine")
        return cls(name, total_bytes(device), device)


class Rates:
    """FLOP/s of a machine: what the stages of a model were seen to do, else a share of a matrix product's rate."""

    def __init__(self, measure: Callable[[str, torch.dtype], float] = product_rate) -> None:
        self._measure = measure
        self._lock = threading.Lock()
        self._products: dict[tuple[str, torch.dtype], float] = {}
        self._seen: dict[tuple[str, Stage], float] = {}

    def product(self, kind: str, dtype: torch.dtype) -> float:
        """Measured the first time."""
        with self._lock:
            if (kind, dtype) not in self._products:
                self._products[kind, dtype] = self._measure(kind, dtype)
            return self._products[kind, dtype]

    def of(self, model_id: str, stage: Stage, kind: str, dtype: torch.dtype) -> float:
        return self._seen.get((model_id, stage)) or _UNSEEN * self.product(kind, dtype)

    def see(self, model_id: str, stage: Stage, kind: str, dtype: torch.dtype, flops: float, seconds: float) -> None:
        """A stage took so long. What went faster than the machine multiplies was not computed (a prompt that was kept),
        and says nothing."""
        if seconds > 0 and 0 < flops < _PEAK * self.product(kind, dtype) * seconds:
            self._seen[model_id, stage] = flops / seconds


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes that a run holds at its fullest moment, of those that there are, and the seconds it may take."""

    needed_bytes: int
    machine: Machine
    seconds: float

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.machine.total_bytes


class Estimator:
    """Knows one machine, and learns from the runs there. Safe to ask from several threads."""

    def __init__(
        self,
        options: WeightOptions = DEFAULT_OPTIONS,
        machine: Machine | None = None,
        *,
        rates: Rates | None = None,
        counter: WorkCounter | None = None,
    ) -> None:
        """`machine` None is this one, `counter` None that of all others: what a run computes is the same everywhere."""
        self.options = options
        self.machine = machine or Machine.here()
        self.rates = rates or Rates()
        self.counter = counter or COUNTER

    def work(self, spec: ModelSpec, request: GenerationRequest) -> dict[Stage, Work]:
        """The stages of a run."""
        machine = self.machine
        bits, precision = t5_bits(spec, self.options), self.options.precision
        return self.counter.of(spec, request, machine.device, bits, machine.total_bytes, precision)

    def estimate(self, spec: ModelSpec, request: GenerationRequest) -> Estimate:
        """Of the request only what decides about work is looked at: shape, scenes, steps, scales and rules, and whether
        frames are given."""
        work, dtypes, kind = self.work(spec, request), self._dtypes(spec), self.machine.device.type
        seconds = sum(part.flops / self.rates.of(spec.id, stage, kind, dtypes[stage]) for stage, part in work.items())
        return Estimate(max(self._needed(spec, work).values()), self.machine, seconds)

    def remember(self, spec: ModelSpec, request: GenerationRequest, seconds: Mapping[str, float]) -> None:
        """A run took so many seconds for each stage: the next estimate of this model goes by it. How many steps a step
        cache will leave out is not known before, and is not counted."""
        dtypes, kind = self._dtypes(spec), self.machine.device.type
        for stage, work in self.work(spec, request).items():
            if stage == "denoise" and request.step_cache != "off":
                continue
            self.rates.see(spec.id, stage, kind, dtypes[stage], work.flops, seconds.get(stage, 0))

    def _dtypes(self, spec: ModelSpec) -> dict[Stage, torch.dtype]:
        return dtypes_of(spec, self.machine.device, self.options.precision)

    def _needed(self, spec: ModelSpec, work: Mapping[Stage, Work]) -> dict[Stage, int]:
        """Bytes of each stage, with what stays in memory from the others."""
        weights = {stage: part.weights_bytes for stage, part in work.items()}
        kind, there = self.machine.device.type, self.machine.total_bytes
        base, can_stream = PROCESS_BYTES, frozenset[Stage]()
        placement, streamed = "in turn", frozenset[Stage]()
        if spec.published:
            if t5_bits(spec, self.options) < 16:  # it stays
                base += weights["text"]
                weights["text"] = 0
            can_stream = streamable(spec, self.options)
            if kind == "cuda":
                placement, streamed = plan_placement(weights, there - base, can_stream, self.options.placement)
        needed: dict[Stage, int] = {}
        for stage, part in work.items():
            held = sum(weights.values()) if placement == "together" else weights[stage]
            whole = base + held + part.peak_bytes
            if stage in streamed or (kind == "cpu" and stage in can_stream and whole > there):
                whole -= round((1 - _HELD[stage]) * weights[stage])  # mapped pages and streamed layers come and go
            needed[stage] = whole
        return needed

    def check_fits(self, spec: ModelSpec, request: GenerationRequest) -> None:
        """Raises DeviceError naming the memory that is needed, that there is, and the nearest setting that fits."""
        found = self.estimate(spec, request)
        if found.fits:
            return
        need, have = found.needed_bytes / 1e9, found.machine.total_bytes / 1e9
        memory: dict[str, Param] = {
            "need": float(f"{need:.3g}"),
            "have": float(f"{have:.3g}"),
            "machine": found.machine.name,
        }
        if (smaller := self.nearest_fit(spec, request)) is None:
            raise DeviceError(message("device.needs_none", model=spec.id, **memory))
        s = smaller.shape
        raise DeviceError(message("device.needs", frames=s.frames, width=s.width_px, height=s.height_px, **memory))

    def ran_out(self, spec: ModelSpec, request: GenerationRequest) -> OutOfMemory:
        """What to say of a run for which there was no memory, though it may have been expected to fit: what it needs,
        what there is, and the nearest smaller clip."""
        found = self.estimate(spec, request)
        room = min(found.machine.total_bytes, found.needed_bytes - 1)
        tight = Estimator(self.options, replace(self.machine, total_bytes=room), rates=self.rates, counter=self.counter)
        numbers: dict[str, Param] = {
            "need": float(f"{found.needed_bytes / 1e9:.3g}"),
            "have": float(f"{found.machine.total_bytes / 1e9:.3g}"),
            "machine": found.machine.name,
        }
        if (smaller := tight.nearest_fit(spec, request)) is None:
            return OutOfMemory(message("device.ran_out_none", **numbers))
        s = smaller.shape
        return OutOfMemory(message("device.ran_out", frames=s.frames, width=s.width_px, height=s.height_px, **numbers))

    def nearest_fit(self, spec: ModelSpec, request: GenerationRequest) -> GenerationRequest | None:
        """The largest clip (by pixels times frames) of the request's aspect that fits where the request's own does not;
        the smallest of all where none of that aspect does."""
        limits, size = spec.limits, request.size or spec.limits.sizes[0]
        room, volume = self.machine.total_bytes, _volume(request.shape)

        def smaller(shape: VideoShape, of: Size) -> GenerationRequest:
            return replace(request, shape=shape, size=of if request.size is not None else None)

        least = smaller(*min(_clips(limits), key=lambda clip: _volume(clip[0])))
        if not self.estimate(spec, least).fits:  # counting the others would take long
            return None
        work, tried = self.work(spec, request), volume
        for shape, of in sorted(_clips(limits), key=lambda clip: -_volume(clip[0])):
            likely = max(part.peak_bytes for part in work.values()) * _volume(shape) / tried
            if of.aspect != size.aspect or _volume(shape) >= volume or likely > 1.1 * room:
                continue
            if self.estimate(spec, found := smaller(shape, of)).fits:
                return found
            work, tried = self.work(spec, found), _volume(shape)
        return least if _volume(least.shape) < volume else None


def smallest_shape(limits: Limits) -> VideoShape:
    """The quickest clip to count."""
    return min((shape for shape, _ in _clips(limits)), key=_volume)


def _clips(limits: Limits) -> list[tuple[VideoShape, Size]]:
    """Every length at every size."""
    return [
        (VideoShape(frames=frames, height_px=size.height_px, width_px=size.width_px), size)
        for size in limits.sizes
        for frames in limits.frames
    ]


def _volume(shape: VideoShape) -> int:
    return shape.frames * shape.height_px * shape.width_px
