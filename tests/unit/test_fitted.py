"""What suits the processor: bfloat16 and one thread where that was seen to be faster, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from opensora_demo.catalog import MODELS, NANO
from opensora_demo.metrics import psnr
from opensora_demo.nn import threads
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime import fitted, precision
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.runtime.cost.work import dtypes_of
from opensora_demo.weights.options import Precision, WeightOptions

CPU, GPU = torch.device("cpu"), torch.device("cuda")
HALF, FULL = torch.bfloat16, torch.float32


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the parts of a model are seen to gain, on a processor with the instructions; a part that is measured again
    is a fault once its number is taken out."""
    found = {"network": 2.0, "codec": 1.05, "threads": 0.8}
    monkeypatch.setattr(fitted, "has_bfloat16", lambda: True)
    monkeypatch.setattr(fitted, "gain", lambda _, part: found[part])
    monkeypatch.setattr(fitted, "one_threads_gain", lambda _: found["threads"])
    return found


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_all", 2)  # what a run computes with, whatever other tests have said
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def bundle_of(wish: Precision, folder: Path | None = None) -> ModelBundle:
    return build_bundle(NANO, CPU, WeightOptions(precision=wish, cache_dir=folder))


def test_what_gains_is_in_bfloat16(gains: dict[str, float], nano: ModelBundle) -> None:
    bundle = bundle_of("auto")
    assert precision.precision_of(bundle) == {"network": "bfloat16", "codec": "float32"}
    assert bundle.family.weaker is not None
    assert {p.dtype for p in bundle.family.weaker.network.parameters() if p.numel() > 1000} == {HALF}
    assert all(p.dtype == FULL for name, p in bundle.family.network.state_dict().items() if name.endswith("rope.freqs"))
    assert bundle.t5 is not None
    assert next(bundle.t5.parameters()).dtype == FULL
    raw = {"prompt": "a red ball bouncing over a meadow", "seed": 3, "steps": 4, "frames": 5}
    request = parse_request(raw, model_id="nano", limits=NANO.limits)
    half, full = run(bundle, request), run(nano, request)
    assert half.precision == {"network": "bfloat16", "codec": "float32"}
    assert full.precision == {"network": "float32", "codec": "float32"}
    assert not np.array_equal(half.clips[0].frames, full.clips[0].frames)
    assert psnr(half.clips[0].frames, full.clips[0].frames) > 30  # a few levels of 256


@pytest.mark.slow
def test_every_rule_and_every_model_runs_in_bfloat16() -> None:
    """The weaker model's network computes in what the good one's does."""
    bundle = bundle_of("bfloat16")
    raw = {"prompt": "a ball", "steps": 2, "frames": 1, "guidance": 3.0}
    one = parse_request(raw, model_id="nano", limits=NANO.limits)
    for clip in run(bundle, replace(one, rules=NANO.limits.rules)).clips:
        assert clip.frames.any()
    for name in ("nano-dit", "nano-mmdit"):
        spec = MODELS[name]
        other = build_bundle(spec, CPU, WeightOptions(precision="bfloat16"))
        request = parse_request({"prompt": "a ball", "steps": 2}, model_id=name, limits=spec.limits)
        assert run(other, request).precision == {"network": "bfloat16", "codec": "bfloat16"}


def test_a_measurement_is_kept_for_its_processor(
    gains: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    bundle_of("auto", folder)
    gains.clear()
    assert precision.precision_of(bundle_of("auto", folder))["network"] == "bfloat16"

    gains |= {"network": 1.0, "codec": 3.0, "threads": 0.5}
    monkeypatch.setattr(fitted, "processor", lambda: "another one")
    found = precision.precision_of(bundle_of("auto", folder))
    assert found == {"network": "float32", "codec": "bfloat16"}
    monkeypatch.undo()
    monkeypatch.setattr(fitted, "has_bfloat16", lambda: True)
    monkeypatch.setattr(fitted, "gain", lambda *_: 0.5)
    monkeypatch.setattr(fitted, "one_threads_gain", lambda _: 0.5)
    assert precision.precision_of(bundle_of("auto", folder))["network"] == "bfloat16"  # the first one's is still there

    (folder / fitted.KEPT).write_text('{"AMD": [', "utf-8")
    assert precision.precision_of(bundle_of("auto", folder))["network"] == "float32"
    assert [file.name for file in folder.iterdir()] == [fitted.KEPT]


def test_where_nothing_can_be_kept_it_is_measured_each_time(gains: dict[str, float], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bundle = bundle_of("auto", tmp_path / "file")
    assert precision.precision_of(bundle)["network"] == "bfloat16"


def test_a_processor_without_the_instructions_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fitted, "has_bfloat16", lambda: False)
    monkeypatch.delattr(fitted, "gain")
    monkeypatch.delattr(fitted, "one_threads_gain")
    torch.set_num_threads(1)
    assert precision.precision_of(bundle_of("auto", tmp_path)) == {"network": "float32", "codec": "float32"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["network", "codec"])
def test_measuring_leaves_everything_as_it_was(part: precision.Half) -> None:
    bundle = bundle_of("stored")
    modules = {"network": bundle.family.network, "codec": bundle.codec}
    before = {name: value.clone() for name, value in modules[part].state_dict().items()}
    threads = torch.get_num_threads()
    assert precision.gain(bundle, part, rounds=1) > 0
    after = modules[part].state_dict()
    assert all(
        torch.equal(value, after[name]) and value.stride() == after[name].stride() for name, value in before.items()
    )
    assert torch.get_num_threads() == threads
    assert not any(p.requires_grad for p in modules[part].parameters())


@pytest.mark.parametrize(
    ("model", "device", "wish", "loaded"),
    [
        ("nano", CPU, "stored", FULL),
        ("nano", CPU, "auto", FULL),  # until it is tried
        ("nano", CPU, "bfloat16", HALF),
        ("nano", GPU, "auto", FULL),
        ("opensora-1.2", CPU, "stored", None),
        ("opensora-1.2", CPU, "auto", HALF),
        ("opensora-1.2", CPU, "float32", FULL),
        ("opensora-1.2", GPU, "stored", HALF),
        ("opensora-1.2", GPU, "auto", HALF),
        ("opensora-1.2", GPU, "float32", FULL),
        ("opensora-2.0", CPU, "float32", FULL),
    ],
)
def test_what_is_loaded_in_which_numbers(
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    device: torch.device,
    wish: Precision,
    loaded: torch.dtype | None,
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "product_rate", lambda _, dtype: 2e11 if dtype == HALF else 1e11)
    assert precision.wide_dtype(MODELS[model], device, wish) == loaded
    if loaded is not None:
        assert dtypes_of(MODELS[model], device, wish)["denoise"] == loaded
    monkeypatch.setattr(precision, "product_rate", lambda *_: 1e11)  # no gain
    if (model, device, wish) == ("opensora-1.2", CPU, "auto"):
        assert precision.wide_dtype(MODELS[model], device, wish) is None


@pytest.mark.parametrize(("gain", "alone"), [(1.3, True), (0.97, True), (0.8, False)])
def test_one_thread_computes_what_is_too_small_for_two(
    gains: dict[str, float], gain: float, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one clip both branches; of two clips each thread has a half. The numbers are about the same."""
    gains["threads"] = gain
    bundle = bundle_of("float32")
    used: list[tuple[int, int]] = []
    call = type(bundle.family.adapter).call

    def counted(self: Any, x: Any, *arguments: Any) -> Any:
        used.append((len(x), torch.get_num_threads()))
        return call(self, x, *arguments)

    monkeypatch.setattr(type(bundle.family.adapter), "call", counted)
    raw = {"prompt": "a red ball", "seed": 3, "steps": 2, "frames": 1}
    run(bundle, parse_request(raw | {"guidance": [4.0]}, model_id="nano", limits=NANO.limits))
    assert set(used) == {(2, 1 if alone else 2)}
    assert torch.get_num_threads() == 2
    used.clear()
    run(bundle, parse_request(raw | {"guidance": [2.0, 4.0]}, model_id="nano", limits=NANO.limits))
    assert used.count((2, 1)) == 2 + alone  # the first step is both clips' and has two pairs
    assert torch.get_num_threads() == 2


def test_what_one_thread_gains_is_measured_and_nothing_left_changed() -> None:
    bundle = bundle_of("stored")
    assert fitted.one_threads_gain(bundle, rounds=1) > 0
    assert not bundle.family.one_thread
    assert torch.get_num_threads() == 2
