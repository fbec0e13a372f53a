"""Parts that take turns on the device, prompts that are encoded once, and what a run takes before it starts."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.synthetic import write_checkpoint
from opensora_demo import estimate as module
from opensora_demo.bundle import build_bundle
from opensora_demo.catalog import MODELS, ModelSpec
from opensora_demo.errors import DeviceError, WeightsError
from opensora_demo.estimate import (
    Machine,
    bytes_of,
    check_fits,
    count_work,
    estimate,
    nearest_fit,
    pairs_of,
    remember,
)
from opensora_demo.explain.run import Attentions, explain
from opensora_demo.pipeline import run
from opensora_demo.placement import Placed, choose_placement
from opensora_demo.text.cache import EmbeddingCache
from opensora_demo.text.quantized import Bits, Quantizer, quantized_bytes, wanted_bits
from opensora_demo.types import GenerationRequest, Stage, parse_request
from tests.unit.test_store import CPU, clip_of, published, weights  # noqa: F401 - a fixture

STAGES: tuple[Stage, ...] = ("text", "denoise", "decode")


def request_of(spec: ModelSpec, **raw: Any) -> GenerationRequest:
    return parse_request({"prompt": "a ball", "seed": 3, **raw}, model_id=spec.id, limits=spec.limits)


def test_placement_follows_the_room() -> None:
    of_20: dict[Stage, int] = {"text": 10, "denoise": 24, "decode": 1}
    assert choose_placement(of_20, 100) == ("together", frozenset())
    assert choose_placement(of_20, 40) == ("in turn", frozenset())
    assert choose_placement(of_20, 24) == ("in turn", frozenset({"denoise"}))
    assert choose_placement(of_20, 12) == ("in turn", frozenset({"denoise", "text"}))


def test_parts_take_turns_and_keep_their_numbers() -> None:
    """In another dtype on the device, as on a GPU; away from it they are what the file holds, not a copy."""
    parts = {stage: nn.Linear(4, 4) for stage in STAGES}
    before = {stage: part.weight.data_ptr() for stage, part in parts.items()}
    placed = Placed({stage: [part] for stage, part in parts.items()}, CPU, "in turn", torch.bfloat16)
    for stage in (*STAGES, STAGES[0]):
        placed.use(stage)
        assert {name for name, part in parts.items() if part.weight.dtype == torch.bfloat16} == {stage}
        assert all(parts[name].weight.data_ptr() == before[name] for name in STAGES if name != stage)
    placed = Placed({stage: [part] for stage, part in parts.items()}, CPU, "together", torch.bfloat16)
    for stage in STAGES:
        placed.use(stage)
    assert all(part.weight.dtype == torch.bfloat16 for part in parts.values())


@pytest.mark.parametrize("model", [name for name in MODELS if name.startswith("debug")])
@pytest.mark.parametrize("how", ["together", "in turn"])
def test_everything_of_a_part_comes_onto_the_device(model: str, how: str) -> None:
    """Another device than the CPU, which holds no numbers, but tensors know where they are."""
    family, codec = (bundle := build_bundle(MODELS[model], CPU)).family, bundle.codec
    encoders = [e for e in (getattr(family, "text", None), getattr(family, "pooled", None)) if isinstance(e, nn.Module)]
    assert encoders
    parts: dict[Stage, list[Any]] = {"text": encoders, "denoise": [family.network], "decode": [codec]}  # type: ignore[attr-defined]
    placed = Placed(parts, torch.device("meta"), how, torch.bfloat16)  # type: ignore[arg-type]
    for stage, modules in parts.items():
        placed.use(stage)
        for part in modules:
            assert all(value.is_meta for value in (*part.parameters(), *part.buffers()))


def test_streamed_layers_make_the_same_clip(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    spec = published("debug-2.0")
    write_checkpoint(spec, weights)
    wanted = clip_of(spec)
    monkeypatch.setenv("OPENSORA_PLACEMENT", "streamed")
    monkeypatch.setenv("OPENSORA_CACHE", str(weights.parent / "another"))
    bundle = build_bundle(spec, CPU)
    for _ in range(2):
        assert np.array_equal(run(bundle, request_of(spec, steps=2)).clips[0].frames, wanted)
        network = bundle.family.network  # type: ignore[attr-defined]
        text = bundle.family.text.encoder  # type: ignore[attr-defined]
        for part in (network, text):
            assert all(p.is_meta for p in part.parameters())  # between its calls nothing is held


@pytest.mark.parametrize("model", ["debug-1.0-dit", "debug-1.0", "debug-1.1", "debug-1.2", "debug-1.3", "debug-2.0"])
def test_half_precision_comes_near_the_full_one(model: str) -> None:
    """The whole path in bfloat16, as published models run on a GPU."""
    spec = MODELS[model]
    bundle = build_bundle(spec, CPU)
    request = request_of(spec, steps=4)
    wanted = run(bundle, request).clips[0].frames.astype(float)
    for part in (bundle.family.network, bundle.family.text, bundle.codec):  # type: ignore[attr-defined]
        part.to(torch.bfloat16)
    found = run(bundle, request).clips[0].frames.astype(float)
    assert np.corrcoef(wanted.ravel(), found.ravel())[0, 1] > 0.97


def test_a_prompt_is_encoded_once(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("OPENSORA_CACHE", str(tmp_path / "embeddings"))
    spec = published("debug-2.0")
    write_checkpoint(spec, weights)
    bundle = build_bundle(spec, CPU)
    text, pooled = bundle.family.text, bundle.family.pooled  # type: ignore[attr-defined]
    assert isinstance(text, EmbeddingCache)
    first = run(bundle, request_of(spec, steps=1)).clips[0].frames
    assert (text.calls, pooled.calls) == (2, 2)  # the prompt and the empty one
    assert np.array_equal(run(bundle, request_of(spec, steps=1)).clips[0].frames, first)
    assert (text.calls, pooled.calls) == (2, 2)
    run(bundle, request_of(spec, steps=1, prompt="a star"))
    assert (text.calls, pooled.calls) == (3, 3)

    later = build_bundle(spec, CPU)  # another process finds them on disk
    assert np.array_equal(run(later, request_of(spec, steps=1)).clips[0].frames, first)
    assert later.family.text.calls == later.family.pooled.calls == 0  # type: ignore[attr-defined]
    files = sorted((tmp_path / "embeddings" / "text").iterdir())
    assert len(files) == 6
    assert not any(b"ball" in file.read_bytes() for file in files)  # nobody reads prompts off the disk
    for file in files:
        file.write_bytes(file.read_bytes()[:-3])
    broken = build_bundle(spec, CPU)
    assert np.array_equal(run(broken, request_of(spec, steps=1)).clips[0].frames, first)
    assert broken.family.text.calls == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("bits", [8, 4])
def test_t5_in_fewer_bits(weights: Path, monkeypatch: pytest.MonkeyPatch, bits: Bits) -> None:  # noqa: F811
    spec = published("debug-2.0")
    write_checkpoint(spec, weights)
    whole = build_bundle(spec, CPU).family.text.encoder.model  # type: ignore[attr-defined]
    clip = clip_of(spec)
    monkeypatch.setenv("OPENSORA_T5_BITS", str(bits))
    bundle = build_bundle(spec, CPU)
    found = run(bundle, request_of(spec, steps=2)).clips[0].frames
    assert bundle.family.text.calls == 2  # type: ignore[attr-defined]  # other numbers than those kept on disk
    assert not np.array_equal(found, clip)
    small = bundle.family.text.encoder.model  # type: ignore[attr-defined]
    linears = [name for name, m in whole.named_modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 7
    for name in linears:
        x = torch.randn(1, 50, whole.get_submodule(name).in_features, dtype=torch.bfloat16)
        wanted, y = whole.get_submodule(name)(x), small.get_submodule(name)(x)
        assert y.dtype == wanted.dtype
        assert 0.001 < float((y - wanted).norm() / wanted.norm()) < {8: 0.02, 4: 0.35}[bits]

    big = nn.Sequential(nn.Linear(256, 256, bias=False), nn.Embedding(4, 256)).to(torch.bfloat16)
    counted = quantized_bytes(big, bits)
    Quantizer(big, bits, CPU, None)()
    held = _bytes_held(big)
    assert counted == pytest.approx(held, rel=0.03)


def _bytes_held(module: nn.Module) -> int:
    held = 0
    for value in module.parameters():
        if hasattr(value, "tensor_data_names"):  # torchao's
            held += sum(getattr(value, name).nbytes for name in value.tensor_data_names)
        else:
            state = getattr(value, "quant_state", None)  # bitsandbytes'
            held += value.nbytes + (0 if state is None else state.absmax.nbytes)
    return held


@pytest.mark.parametrize("bits", [8, 4])
def test_t5_in_fewer_bits_beside_a_streamed_transformer(
    weights: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    bits: Bits,
) -> None:
    spec = published("debug-2.0")
    write_checkpoint(spec, weights)
    monkeypatch.setenv("OPENSORA_T5_BITS", str(bits))
    wanted = clip_of(spec)
    monkeypatch.setenv("OPENSORA_PLACEMENT", "streamed")
    monkeypatch.setenv("OPENSORA_CACHE", str(weights.parent / "another"))
    assert np.array_equal(clip_of(spec), wanted)


def test_memory_that_runs_out_half_way_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return (
            nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(4))).to(torch.bfloat16).requires_grad_(False)
        )

    import torchao.quantization as package

    x, whole, broken = torch.randn(3, 64, dtype=torch.bfloat16), network(), network()
    Quantizer(whole, 8, CPU, None)()
    quantize, calls = package.quantize_, []

    def fails_once(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise torch.OutOfMemoryError
        quantize(*args)

    monkeypatch.setattr(package, "quantize_", fails_once)
    quantizer = Quantizer(broken, 8, CPU, None)
    with pytest.raises(torch.OutOfMemoryError):
        quantizer()
    quantizer()
    quantizer()
    assert len(calls) == 5
    assert torch.equal(broken(x), whole(x))


def test_t5_in_fewer_bits_is_counted_in_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays on the device; a whole one leaves."""
    monkeypatch.setattr(module, "product_rate", lambda kind, dtype: 1e14)
    spec, gpu = MODELS["opensora-1.3"], torch.device("cuda")
    monkeypatch.setattr(module, "machine_of", lambda _: Machine("a modest card", 16 * 10**9))
    whole = estimate(spec, request_of(spec), gpu).needed_bytes
    monkeypatch.setenv("OPENSORA_T5_BITS", "8")
    assert estimate(spec, request_of(spec), gpu).needed_bytes > whole + 4.8e9


def test_the_estimate_follows_the_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "product_rate", lambda kind, dtype: 1e14)
    spec, gpu = MODELS["opensora-2.0"], torch.device("cuda")
    request = request_of(spec, frames=129, resolution="768px")
    needed = {}
    for room in (16, 24, 33, 40, 141):
        monkeypatch.setattr(module, "machine_of", lambda _, room=room: Machine("a card", room * 10**9))
        needed[room] = estimate(spec, request, gpu).needed_bytes / 1e9
    assert needed[16] == needed[24] < 13  # its layers are streamed
    assert 20 < needed[33] < 23  # decoded whole
    assert 34 < needed[40] < 36  # the transformer stays while it denoises
    assert 54 < needed[141] < 57  # all of it stays


def test_fewer_bits_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert wanted_bits() == 16
    for told, sentence in (("8", "needs torchao"), ("4", "needs bitsandbytes"), ("5", "must be 16, 8 or 4, not 5")):
        monkeypatch.setenv("OPENSORA_T5_BITS", told)
        with pytest.raises(WeightsError, match=sentence):
            wanted_bits()


def test_how_it_works_reads_a_published_model_too(weights: Path) -> None:  # noqa: F811
    spec = published("debug-1.2")
    write_checkpoint(spec, weights)
    for _ in range(2):  # the second time no encoder is called
        parts = list(explain(build_bundle(spec, CPU), request_of(spec, steps=2)))
        (attentions,) = (part for part in parts if isinstance(part, Attentions))
        assert "".join(attentions.words).startswith("aball")


# --- estimates


@pytest.mark.parametrize("model", ["nano", "nano-dit", "nano-mmdit", "debug-1.1", "debug-1.3", "debug-2.0"])
def test_weights_are_counted(model: str) -> None:
    spec = MODELS[model]
    bundle = build_bundle(spec, CPU)
    work = count_work(spec, request_of(spec), CPU)
    assert work["denoise"].weights_bytes == bytes_of(bundle.family.network)  # type: ignore[attr-defined]
    assert work["decode"].weights_bytes == bytes_of(bundle.codec)  # type: ignore[arg-type]
    assert all(part.flops > 0 and part.peak_bytes > 0 for part in work.values())


def test_flops_of_a_published_model() -> None:
    """Open-Sora 1.2, 51 frames of 240p: 26.4 TFLOP by hand for a step of two branches with 120 words (here 300)."""
    spec = MODELS["opensora-1.2"]
    work = count_work(spec, request_of(spec), torch.device("cuda"))
    assert work["denoise"].flops / spec.limits.steps.default == pytest.approx(26.4e12, rel=0.04)
    assert work["denoise"].weights_bytes == pytest.approx(2 * 1.209e9, rel=0.01)
    assert work["text"].weights_bytes == pytest.approx(9.52e9, rel=0.01)
    assert 0.2e9 < work["denoise"].peak_bytes < 1.5e9


def test_work_grows_with_what_is_asked() -> None:
    spec = MODELS["debug-1.2"]
    base = count_work(spec, request_of(spec, guidance=4), CPU)
    assert count_work(spec, request_of(spec, guidance=1), CPU)["denoise"].flops == pytest.approx(
        base["denoise"].flops / 2, rel=0.05
    )
    several = count_work(spec, request_of(spec, guidance=[2, 4, 7]), CPU)
    assert several["denoise"].flops == pytest.approx(3 * base["denoise"].flops)
    assert several["decode"].flops == 3 * base["decode"].flops
    large = count_work(spec, request_of(spec, resolution="64px"), CPU)
    assert large["denoise"].peak_bytes > 2 * base["denoise"].peak_bytes
    assert large["denoise"].weights_bytes == base["denoise"].weights_bytes
    assert pairs_of(spec, request_of(spec, guidance=[1, 4])) == 3


def test_what_two_ask_for_at_once_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(MODELS["debug-1.2"], id="counted-once")
    built: list[object] = []
    build = module.build_network
    monkeypatch.setattr(module, "build_network", lambda config: built.append(config) or build(config))
    threads = [threading.Thread(target=count_work, args=(spec, request_of(spec), CPU)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_seconds_follow_what_was_seen() -> None:
    spec = MODELS["debug-1.1"]
    request = request_of(spec)
    assert estimate(spec, request, CPU).seconds > 0
    before = estimate(spec, request, CPU).seconds
    remember(spec, request, CPU, {"text": 1e-9, "denoise": 1e-9, "decode": 1e-9})  # nothing was computed
    assert estimate(spec, request, CPU).seconds == before
    remember(spec, request, CPU, {"text": 1.0, "denoise": 20.0, "decode": 3.0})
    assert estimate(spec, request, CPU).seconds == pytest.approx(24, rel=1e-6)
    twice = request_of(spec, steps=2 * request.steps)
    assert estimate(spec, twice, CPU).seconds == pytest.approx(44, rel=1e-6)


def test_a_transformer_larger_than_the_memory_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MODELS["opensora-2.0"]
    request = request_of(spec, frames=33, resolution="256px")
    monkeypatch.setattr(module, "machine_of", lambda _: Machine("a large card", 80 * 10**9))
    assert estimate(spec, request, CPU).needed_bytes > 23.7e9
    monkeypatch.setattr(module, "machine_of", lambda _: Machine("a modest card", 24 * 10**9))
    assert 10e9 < estimate(spec, request, CPU).needed_bytes < 18e9
    check_fits(spec, request, CPU)


def test_a_clip_too_long_to_decode_whole_is_decoded_in_tiles_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.0's VAE: as Open-Sora runs it memory grows with the clip; in tiles of time it does not."""
    spec = MODELS["opensora-2.0"]
    gpu = torch.device("cuda")
    monkeypatch.setattr(module, "product_rate", lambda kind, dtype: 1e14)
    whole, tiled = [], []
    for frames in (97, 129):
        request = request_of(spec, frames=frames, resolution="768px")
        whole.append(count_work(spec, request, gpu)["decode"].bytes)
        monkeypatch.setattr(module, "machine_of", lambda _: Machine("a modest card", 14 * 10**9))
        tiled.append(estimate(spec, request, gpu).needed_bytes)
    assert whole[1] > 1.25 * whole[0] > 18e9
    assert tiled[1] < 14e9
    assert tiled[1] < 1.1 * tiled[0]


def test_what_cannot_fit_is_refused_with_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MODELS["debug-1.2"]
    request = request_of(spec, resolution="64px", aspect="2:3", frames=34)
    check_fits(spec, request, CPU)
    needed = estimate(spec, request, CPU).needed_bytes
    monkeypatch.setattr(module, "machine_of", lambda _: Machine("the toaster", needed - 1))
    sentence = r"this needs about 0\.6\d+ GB, and the toaster has 0\.6\d+; \d+ frames of \d+ x \d+ would fit"
    with pytest.raises(DeviceError, match=sentence):
        check_fits(spec, request, CPU)
    smaller = nearest_fit(spec, request, CPU)
    assert smaller is not None
    assert smaller.size is not None
    assert smaller.size.aspect == "2:3"
    assert estimate(spec, smaller, CPU).fits
    only = replace(spec, limits=replace(spec.limits, sizes=(*spec.limits.sizes[:1], request.size)))
    assert request.size is not None
    assert only.limits.sizes[0].aspect != request.size.aspect
    smallest = replace(only.limits, frames=(34,), sizes=only.limits.sizes)
    other = nearest_fit(replace(spec, limits=smallest), request, CPU)
    assert other is not None  # of another aspect, where none of the asked one fits
    assert other.size == only.limits.sizes[0]
    counted: list[object] = []
    monkeypatch.setattr(module, "machine_of", lambda _: Machine("the toaster", 1000))
    monkeypatch.setattr(module, "estimate", lambda *args: counted.append(args) or estimate(*args))
    assert nearest_fit(spec, request, CPU) is None
    assert len(counted) == 1  # if the smallest does not fit, none does
    monkeypatch.setattr(module, "estimate", estimate)
    monkeypatch.setattr(module, "machine_of", lambda _: Machine("the toaster", 1000))
    with pytest.raises(DeviceError, match=r"no clip of debug-1\.2 fits here"):
        check_fits(spec, request, CPU)
