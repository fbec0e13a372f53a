"""What a run takes, before it starts."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from opensora_demo.catalog import MODELS, ModelSpec
from opensora_demo.errors import DeviceError
from opensora_demo.messages import render
from opensora_demo.pipeline import run
from opensora_demo.request.limits import Size
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.runtime.cost.counter import Counter, bytes_of
from opensora_demo.runtime.cost.estimator import Estimator, Machine, Rates
from opensora_demo.runtime.cost.fits import Fit, first_sizes, fit_lines, what_fits
from opensora_demo.runtime.cost.work import WorkCounter
from opensora_demo.weights.options import DEFAULT_OPTIONS, WeightOptions
from tests.models import sampled

CPU, GPU = torch.device("cpu"), torch.device("cuda")
COUNTER = WorkCounter()  # counts are the same in every test


def estimator(gigabytes: float = 80, device: torch.device = CPU, options: WeightOptions = DEFAULT_OPTIONS) -> Estimator:
    machine = Machine("the toaster", round(gigabytes * 10**9), device)
    return Estimator(options, machine, rates=Rates(lambda kind, dtype: 1e14), counter=COUNTER)


def request_of(spec: ModelSpec, *, first: bool = False, **raw: Any) -> GenerationRequest:
    request = parse_request({"prompt": "a ball", "seed": 3, **raw}, model_id=spec.id, limits=spec.limits)
    picture = np.zeros((1, request.shape.height_px, request.shape.width_px, 3), np.uint8)
    return replace(request, reference=picture) if first else request


@pytest.mark.parametrize("model", ["opensora-1.2", "opensora-1.3", "opensora-1.0-512", "nano"])
def test_what_fits_is_the_same_as_trying_all(model: str) -> None:
    """With few of them counted, which takes long."""
    spec, counted = MODELS[model], []
    sizes = sorted(first_sizes(spec.limits), key=lambda size: size.height_px * size.width_px)

    def volume(size: Size, frames: int) -> int:
        return frames * size.height_px * size.width_px

    all_volumes = sorted({volume(size, frames) for size in sizes for frames in spec.limits.frames})
    for room in (0, *all_volumes[:: max(len(all_volumes) // 8, 1)], all_volumes[-1]):
        counted.clear()

        class Pretend:
            def estimate(self, _: Any, request: GenerationRequest, room: int = room) -> Any:
                shape = request.shape
                counted.append(shape)
                return SimpleNamespace(fits=shape.frames * shape.height_px * shape.width_px <= room)

        found = what_fits(spec, Pretend())  # type: ignore[arg-type]
        right = [max((n for n in spec.limits.frames if volume(size, n) <= room), default=0) for size in sizes]
        assert [(fit.size, fit.frames) for fit in found] == list(zip(sizes, right, strict=True))
        assert len(counted) <= 2 * len(sizes) + len(spec.limits.frames)


def test_what_fits_in_words() -> None:
    spec = MODELS["opensora-1.2"]
    frames = {"144p": 102, "240p": 102, "360p": 51, "480p": 17, "720p": 0}
    sizes = {size.resolution: size for size in first_sizes(spec.limits)}
    lines = fit_lines([Fit(size=sizes[name], frames=count, most=102) for name, count in frames.items()])
    assert [render(line) for line in lines] == [
        "144p, 240p: every length, up to 102 frames",
        "360p: up to 51 frames",
        "480p: up to 17 frames",
        "720p: none",
    ]


@pytest.mark.parametrize(
    ("rule", "first", "passes"),
    [("oscillating", False, 80), ("plain", False, 100), ("oscillating", True, 110), ("plain", True, 150)],
)
def test_passes_of_open_sora_2(rule: str, first: bool, passes: int) -> None:
    """50 steps: two branches, three with a given frame; the null branches rest where an oscillating scale does."""
    spec = MODELS["opensora-2.0"]
    request = request_of(spec, first=first, rule=rule, steps=50, frames=33, resolution="256px", guidance=7.5)
    assert sum(COUNTER.calls(spec, request)) == passes


def test_a_given_frame_and_the_rule_are_in_the_seconds() -> None:
    spec = MODELS["opensora-2.0"]
    raw = {"steps": 50, "frames": 33, "resolution": "256px", "guidance": 7.5}
    flops = {
        (rule, first): estimator().work(spec, request_of(spec, first=first, rule=rule, **raw))["denoise"].flops
        for rule in ("plain", "oscillating")
        for first in (False, True)
    }
    assert flops["plain", True] == pytest.approx(1.5 * flops["plain", False])
    assert flops["oscillating", False] == pytest.approx(0.8 * flops["plain", False])


CASES: tuple[dict[str, Any], ...] = (
    {"guidance": 4},
    {"guidance": 1},
    {"guidance": 0},
    {"guidance": [0, 1, 4]},
    {"guidance": 4, "first": True},
    {"guidance": [1, 4], "first": True},
)


COUNTED = ["debug-1.0-dit", "debug-1.0", "debug-1.1", "debug-1.2", "debug-1.3", "debug-2.0"]


@pytest.mark.slow
@pytest.mark.parametrize("model", sampled(COUNTED, "debug-1.2", "debug-2.0"))
def test_calls_are_counted_as_they_are_made(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of every batch that a run sends through the network."""
    spec = MODELS[model]
    bundle = build_bundle(spec, CPU)
    made: list[int] = []
    bundle.family.network.register_forward_pre_hook(lambda module, args: made.append(len(args[0])))
    monkeypatch.setattr(bundle.codec, "decode_chunks", lambda z, frames: iter([torch.zeros(len(z), 3, frames, 16, 16)]))
    for case in CASES:
        if case.get("first") and not spec.limits.reference:
            continue
        bent = "fdg" if case.get("first") else "apg"  # as all rules that bend the sum
        for rule in ("plain", "interval", "oscillating", "skip-layer", bent):
            if rule in spec.limits.rules:
                steps = 12 if rule == "oscillating" else 4
                request = request_of(spec, rule=rule, steps=steps, frames=max(spec.limits.frames[:2]), **case)
                made.clear()
                run(bundle, request)
                assert sum(COUNTER.calls(spec, request)) == sum(made), (case, rule)


def test_a_picture_is_not_told_what_is_given() -> None:
    spec = MODELS["debug-2.0"]
    request = request_of(spec, first=True, frames=1, rule="plain", guidance=4, steps=3)
    assert COUNTER.calls(spec, request) == (2, 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nano", "nano-dit", "nano-mmdit", "debug-1.1", "debug-1.3", "debug-2.0"])
def test_weights_are_counted(model: str) -> None:
    spec = MODELS[model]
    bundle = build_bundle(spec, CPU)
    work = estimator().work(spec, request_of(spec))
    weaker = bundle.family.weaker
    assert (weaker is not None) == (model == "nano")
    networks = [bundle.family.network] + ([] if weaker is None else [weaker.network])
    assert work["denoise"].weights_bytes == sum(map(bytes_of, networks))
    assert work["decode"].weights_bytes == bytes_of(bundle.codec)
    assert all(part.flops > 0 and part.peak_bytes > 0 for part in work.values())


def test_flops_of_a_published_model() -> None:
    """Open-Sora 1.2, 51 frames of 240p: 26.4 TFLOP by hand for a step of two branches with 120 words (here 300)."""
    spec = MODELS["opensora-1.2"]
    work = estimator(device=GPU).work(spec, request_of(spec))
    assert work["denoise"].flops / spec.limits.steps.default == pytest.approx(26.4e12, rel=0.04)
    assert work["denoise"].weights_bytes == pytest.approx(2 * 1.209e9, rel=0.01)
    assert work["text"].weights_bytes == pytest.approx(9.52e9, rel=0.01)
    assert 0.2e9 < work["denoise"].peak_bytes < 1.5e9


def test_work_grows_with_what_is_asked() -> None:
    spec, steps = MODELS["debug-1.2"], 10

    def work(**raw: Any) -> Any:
        return estimator().work(spec, request_of(spec, steps=steps, **raw))

    base = work(guidance=4)
    assert work(guidance=1)["denoise"].flops == pytest.approx(base["denoise"].flops / 2, rel=0.05)
    several = work(guidance=[2, 4, 7])
    shared = 1 - 2 / 3 / steps  # the first step is one noise for all
    assert several["denoise"].flops == pytest.approx(3 * shared * base["denoise"].flops)
    assert several["decode"].flops == 3 * base["decode"].flops
    large = work(guidance=4, resolution="64px")
    assert large["denoise"].peak_bytes > 2 * base["denoise"].peak_bytes
    assert large["denoise"].weights_bytes == base["denoise"].weights_bytes


def test_what_two_ask_for_at_once_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, counter = MODELS["debug-1.2"], WorkCounter()
    built: list[object] = []
    build = type(spec.network).build

    def counted(config: Any) -> nn.Module:
        built.append(config)
        return build(config)

    monkeypatch.setattr(type(spec.network), "build", counted)
    asked = (spec, request_of(spec), CPU, 16, 10**9)
    threads = [threading.Thread(target=counter.of, args=asked) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_blocks_built_alike_are_counted_once() -> None:
    """The sums are those of every block by itself; afterwards the blocks compute again."""

    def counted(*once: nn.Module) -> tuple[float, int]:
        with Counter() as counter, counter.counting_once(*once), torch.inference_mode():
            x = torch.empty(3, 8, device="meta")
            for block in blocks:
                x = block(x)
        return counter.flops, counter.peak_bytes

    wide = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8))
    blocks = [nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)) for _ in range(3)] + [wide]
    calls: list[int] = []
    for block in blocks:
        block.to("meta").register_forward_pre_hook(lambda *_: calls.append(1))
        block[0].register_forward_hook(lambda *_: calls.append(10))
    assert counted(*blocks) == counted()
    assert calls.count(10) == 2 + 4
    assert not any("forward" in vars(block) for block in blocks)


def test_seconds_follow_what_was_seen() -> None:
    spec = MODELS["debug-1.2"]
    request, here = request_of(spec, guidance=4), estimator()
    before = here.estimate(spec, request).seconds
    assert before > 0
    here.remember(spec, request, {"text": 1e-12, "denoise": 1e-12, "decode": 1e-12})  # nothing was computed
    assert here.estimate(spec, request).seconds == before
    here.remember(spec, request, {"text": 1.0, "denoise": 20.0, "decode": 3.0})
    assert here.estimate(spec, request).seconds == pytest.approx(24, rel=1e-6)
    here.remember(spec, request_of(spec, guidance=4, step_cache="strong"), {"denoise": 2.0, "decode": 3.0})
    assert here.estimate(spec, request).seconds == pytest.approx(24, rel=1e-6)  # nobody knows how many steps that took
    assert estimator().estimate(spec, request).seconds == before  # another machine learns nothing of it
    twice = request_of(spec, guidance=4, steps=2 * request.steps)
    assert here.estimate(spec, twice).seconds == pytest.approx(44, rel=1e-6)


@pytest.mark.thorough
def test_t5_in_fewer_bits_is_counted_in_every_stage() -> None:
    """It stays on the device; a whole one leaves."""
    spec = MODELS["opensora-1.3"]
    whole = estimator(16, GPU).estimate(spec, request_of(spec)).needed_bytes
    few = estimator(16, GPU, WeightOptions(t5_bits=8)).estimate(spec, request_of(spec)).needed_bytes
    assert few > whole + 4.8e9


@pytest.mark.thorough
def test_the_estimate_follows_the_placement() -> None:
    spec = MODELS["opensora-2.0"]
    request = request_of(spec, frames=129, resolution="768px")
    needed = {room: estimator(room, GPU).estimate(spec, request).needed_bytes / 1e9 for room in (16, 24, 33, 40, 141)}
    assert needed[16] == needed[24] < 13  # its layers are streamed
    assert 20 < needed[33] < 23  # decoded whole
    assert 33 < needed[40] < 36  # the transformer stays while it denoises
    assert 54 < needed[141] < 57  # all of it stays


def test_a_transformer_larger_than_the_memory_is_streamed() -> None:
    spec = MODELS["opensora-2.0"]
    request = request_of(spec, frames=33, resolution="256px")
    assert estimator(80).estimate(spec, request).needed_bytes > 23.7e9
    assert 10e9 < estimator(24).estimate(spec, request).needed_bytes < 18e9
    estimator(24).check_fits(spec, request)


@pytest.mark.thorough
def test_a_clip_too_long_to_decode_whole_is_decoded_in_tiles_of_time() -> None:
    """2.0's VAE: as Open-Sora runs it memory grows with the clip; in tiles of time it does not."""
    spec = MODELS["opensora-2.0"]
    whole, tiled = [], []
    for frames in (97, 129):
        request = request_of(spec, frames=frames, resolution="768px")
        whole.append(estimator(141, GPU).work(spec, request)["decode"].bytes)
        tiled.append(estimator(14, GPU).estimate(spec, request).needed_bytes)
    assert whole[1] > 1.25 * whole[0] > 18e9
    assert tiled[1] < 14e9
    assert tiled[1] < 1.1 * tiled[0]


@pytest.mark.slow
def test_what_cannot_fit_is_refused_with_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MODELS["debug-1.2"]
    request = request_of(spec, resolution="64px", aspect="2:3", frames=34)
    estimator().check_fits(spec, request)
    needed = estimator().estimate(spec, request).needed_bytes
    small = estimator((needed - 1) / 1e9)
    sentence = r"this needs about 0\.6\d+ GB, and the toaster has 0\.6\d+; \d+ frames of \d+ x \d+ would fit"
    with pytest.raises(DeviceError, match=sentence):
        small.check_fits(spec, request)
    sentence = r"ran out of memory: this needs about 0\.6\d+ GB, and the toaster has \d+; try \d+ frames of \d+ x \d+"
    assert re.search(sentence, str(estimator().ran_out(spec, request)))  # though it was expected to fit
    smaller = small.nearest_fit(spec, request)
    assert smaller is not None
    assert smaller.size is not None
    assert smaller.size.aspect == "2:3"
    assert small.estimate(spec, smaller).fits
    only = replace(spec, limits=replace(spec.limits, sizes=(*spec.limits.sizes[:1], request.size)))
    assert request.size is not None
    assert only.limits.sizes[0].aspect != request.size.aspect
    smallest = replace(only.limits, frames=(34,), sizes=only.limits.sizes)
    other = small.nearest_fit(replace(spec, limits=smallest), request)
    assert other is not None  # of another aspect, where none of the asked one fits
    assert other.size == only.limits.sizes[0]

    none, counted = estimator(1e-6), []
    estimate = none.estimate
    monkeypatch.setattr(none, "estimate", lambda *args: counted.append(args) or estimate(*args))
    assert none.nearest_fit(spec, request) is None
    assert len(counted) == 1  # if the smallest does not fit, none does
    with pytest.raises(DeviceError, match=r"no clip of debug-1\.2 fits here"):
        estimator(1e-6).check_fits(spec, request)


def test_labels_need_no_encoder() -> None:
    spec = MODELS["debug-1.0-class"]
    work = estimator().work(spec, request_of(spec))
    assert (work["text"].weights_bytes, work["text"].peak_bytes, work["text"].flops) == (0, 0, 0)
    assert work["denoise"].flops > 0
