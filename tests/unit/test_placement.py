"""Parts that take turns on the device, and prompts that are encoded once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.synthetic import write_checkpoint
from opensora_demo.catalog import MODELS, ModelSpec
from opensora_demo.errors import WeightsError
from opensora_demo.explain.run import Attentions, explain
from opensora_demo.pipeline import run
from opensora_demo.request.events import Stage
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.runtime.placement import Offloader, choose_placement
from opensora_demo.text.cache import EmbeddingCache
from opensora_demo.text.quantized import Bits, Quantizer, check_bits, quantized_bytes
from tests.models import by_kind, sampled
from tests.unit.checkpoints import CPU, clip_of, options_of, published

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
    offloader = Offloader({stage: [part] for stage, part in parts.items()}, CPU, "in turn", torch.bfloat16)
    for stage in (*STAGES, STAGES[0]):
        offloader.prepare(stage)
        assert {name for name, part in parts.items() if part.weight.dtype == torch.bfloat16} == {stage}
        assert all(parts[name].weight.data_ptr() == before[name] for name in STAGES if name != stage)
    offloader = Offloader({stage: [part] for stage, part in parts.items()}, CPU, "together", torch.bfloat16)
    for stage in STAGES:
        offloader.prepare(stage)
    assert all(part.weight.dtype == torch.bfloat16 for part in parts.values())


@pytest.mark.parametrize("model", by_kind(name for name in MODELS if name.startswith("debug")))
@pytest.mark.parametrize("how", ["together", "in turn"])
def test_everything_of_a_part_comes_onto_the_device(model: str, how: str) -> None:
    """Another device than the CPU, which holds no numbers, but tensors know where they are."""
    family, codec = (bundle := build_bundle(MODELS[model], CPU)).family, bundle.codec
    encoders = [e for e in (getattr(family, "text", None), getattr(family, "pooled", None)) if isinstance(e, nn.Module)]
    assert encoders or MODELS[model].labels  # classes are looked up
    parts: dict[Stage, list[Any]] = {"text": encoders, "denoise": [family.network], "decode": [codec]}  # type: ignore[attr-defined]
    offloader = Offloader(parts, torch.device("meta"), how, torch.bfloat16)  # type: ignore[arg-type]
    for stage, modules in parts.items():
        offloader.prepare(stage)
        for part in modules:
            assert all(value.is_meta for value in (*part.parameters(), *part.buffers()))


def test_streamed_layers_make_the_same_clip(weights: Path) -> None:
    spec = published("debug-2.0")
    write_checkpoint(spec, weights)
    wanted = clip_of(spec, options_of(weights))
    streamed = options_of(weights, placement="streamed", cache_dir=weights.parent / "another")
    bundle = build_bundle(spec, CPU, streamed)
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
    request = request_of(spec, steps=2, frames=min(n for n in spec.limits.frames if n > 1))
    wanted = run(bundle, request).clips[0].frames.astype(float)
    for part in (bundle.family.network, bundle.family.text, bundle.codec):  # type: ignore[attr-defined]
        part.to(torch.bfloat16)
    found = run(bundle, request).clips[0].frames.astype(float)
    assert np.corrcoef(wanted.ravel(), found.ravel())[0, 1] > 0.97


def test_a_prompt_is_encoded_once(weights: Path, tmp_path: Path) -> None:
    spec = published("debug-2.0")
    write_checkpoint(spec, weights)
    bundle = build_bundle(spec, CPU, options_of(weights))
    text, pooled = bundle.family.text, bundle.family.pooled  # type: ignore[attr-defined]
    assert isinstance(text, EmbeddingCache)
    first = run(bundle, request_of(spec, steps=1)).clips[0].frames
    assert (text.calls, pooled.calls) == (2, 2)  # the prompt and the empty one
    assert np.array_equal(run(bundle, request_of(spec, steps=1)).clips[0].frames, first)
    assert (text.calls, pooled.calls) == (2, 2)
    run(bundle, request_of(spec, steps=1, prompt="a star"))
    assert (text.calls, pooled.calls) == (3, 3)

    later = build_bundle(spec, CPU, options_of(weights))  # another process finds them on disk
    assert np.array_equal(run(later, request_of(spec, steps=1)).clips[0].frames, first)
    assert later.family.text.calls == later.family.pooled.calls == 0  # type: ignore[attr-defined]
    files = sorted((tmp_path / "embeddings" / "text").iterdir())
    assert len(files) == 6
    assert not any(b"ball" in file.read_bytes() for file in files)  # nobody reads prompts off the disk
    for file in files:
        file.write_bytes(file.read_bytes()[:-3])
    broken = build_bundle(spec, CPU, options_of(weights))
    assert np.array_equal(run(broken, request_of(spec, steps=1)).clips[0].frames, first)
    assert broken.family.text.calls == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("bits", sampled([8, 4], "4"))
def test_t5_in_fewer_bits(weights: Path, bits: Bits) -> None:
    spec = published("debug-2.0")
    write_checkpoint(spec, weights)
    whole = build_bundle(spec, CPU, options_of(weights)).family.text.encoder.model  # type: ignore[attr-defined]
    clip = clip_of(spec, options_of(weights))
    bundle = build_bundle(spec, CPU, options_of(weights, t5_bits=bits))
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


@pytest.mark.parametrize("bits", sampled([8, 4], "8"))
def test_t5_in_fewer_bits_beside_a_streamed_transformer(
    weights: Path,
    bits: Bits,
) -> None:
    spec = published("debug-2.0")
    write_checkpoint(spec, weights)
    few = options_of(weights, t5_bits=bits)
    streamed = replace(few, placement="streamed", cache_dir=weights.parent / "another")
    assert np.array_equal(clip_of(spec, streamed), clip_of(spec, few))


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


def test_fewer_bits_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_bits(16)
    for bits, sentence in ((8, "needs torchao"), (4, "needs bitsandbytes")):
        with pytest.raises(WeightsError, match=sentence):
            check_bits(bits)  # type: ignore[arg-type]


@pytest.mark.thorough
def test_how_it_works_reads_a_published_model_too(weights: Path) -> None:
    spec = published("debug-1.2")
    write_checkpoint(spec, weights)
    for _ in range(2):  # the second time no encoder is called
        parts = list(explain(build_bundle(spec, CPU, options_of(weights)), request_of(spec, steps=2)))
        (attentions,) = (part for part in parts if isinstance(part, Attentions))
        assert "".join(attentions.words).startswith("aball")
