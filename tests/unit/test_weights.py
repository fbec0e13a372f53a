"""Loading: strict, mapped, and with a sentence when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from opensora_demo.catalog import MODELS, NANO, WeightFiles
from opensora_demo.catalog.nano import FILES
from opensora_demo.errors import WeightsError
from opensora_demo.evaluation.study import fingerprint
from opensora_demo.text.clip import ClipConfig, ClipTextEncoder
from opensora_demo.text.t5 import read_tokenizer
from opensora_demo.toy.prompt_words import _tokenizer
from opensora_demo.training.export import save_shards
from opensora_demo.weights.options import DEFAULT_OPTIONS
from opensora_demo.weights.reading import load_module, random_module, read_metadata
from opensora_demo.weights.store import ASSETS, unavailable_reason


def build() -> nn.Linear:
    return nn.Linear(3, 2)


def test_loads_what_was_saved(tmp_path: Path) -> None:
    module = build()
    save_shards(module.state_dict(), [tmp_path / "a", tmp_path / "b"], {"step": "7"})
    loaded = load_module(build, [tmp_path / "a", tmp_path / "b"], "test")
    torch.testing.assert_close(loaded.weight, module.weight, atol=1e-3, rtol=1e-3)
    assert not loaded.training
    assert not loaded.weight.requires_grad
    assert read_metadata(tmp_path / "a")["step"] == "7"


def test_matrices_are_kept_in_8_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(32, 24, 3)
    module.weight.data[3] *= 100  # rows have scales of their own
    save_shards(module.state_dict(), [tmp_path / "a"], {})
    assert (tmp_path / "a").stat().st_size < 1.1 * module.weight.numel() + 600
    loaded = load_module(lambda: nn.Conv2d(32, 24, 3), [tmp_path / "a"], "test")
    error = (loaded.weight - module.weight).detach().flatten(1).abs().amax(1) / module.weight.detach().flatten(
        1
    ).abs().amax(1)
    assert float(error.max()) < 0.5 / 127 + 1e-4
    save_file({"weight.int8_scale": torch.ones(24)}, tmp_path / "b")
    with pytest.raises(WeightsError, match="has no 8-bit tensor"):
        load_module(lambda: nn.Conv2d(32, 24, 3), [tmp_path / "b"], "test")


def test_wrong_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors is missing"):
        load_module(build, [tmp_path / "gone.safetensors"], "test")
    save_file(build().state_dict(), tmp_path / "ok")
    (tmp_path / "short").write_bytes((tmp_path / "ok").read_bytes()[:-5])
    with pytest.raises(WeightsError, match="short is damaged or incomplete"):
        load_module(build, [tmp_path / "short"], "test")
    (tmp_path / "text").write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match="text is damaged"):
        load_module(build, [tmp_path / "text"], "test")
    with pytest.raises(WeightsError, match="which another file holds too"):
        load_module(build, [tmp_path / "ok", tmp_path / "ok"], "test")


def test_names_and_shapes_must_fit(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}, tmp_path / "w")
    with pytest.raises(WeightsError) as caught:
        load_module(build, [tmp_path / "w"], "thing")
    assert "the weights of thing do not fit" in str(caught.value)
    for part in ("bias missing", "extra unexpected", "weight is [2, 4], expected [2, 3]"):
        assert part in str(caught.value)


def test_assets_are_complete_and_small() -> None:
    assert not unavailable_reason(NANO, DEFAULT_OPTIONS)
    files = [f for f in ASSETS.rglob("*") if f.is_file()]
    assert all(f.stat().st_size < 10_000_000 for f in files)
    assert sum(f.stat().st_size for f in files) < 100_000_000
    for name in FILES.all_files():
        if name.endswith(".safetensors"):
            story = read_metadata(ASSETS / FILES.folder / name)
            assert story["command"].startswith("python -m opensora_demo.training nano --seed ")
            assert "/" not in story["command"]  # no path of the machine it was trained on


def test_what_was_measured_is_what_is_shipped_and_good() -> None:
    study = json.loads((ASSETS / FILES.folder / "study.json").read_text())
    assert study["weights"] == fingerprint(NANO)
    assert study["adherence"]["prompts"] >= 512
    found = study["adherence"]["new_prompts"]
    for attribute, least in (("colour", 0.97), ("background", 0.97), ("motion", 0.75), ("shape", 0.95)):
        assert found[attribute] >= least
    scores = {row["scale"]: row["scores"]["all_right"] for row in study["guidance"]["scales"]}
    assert scores[1] <= 0.6  # what guidance is for can be seen
    assert scores[4] >= 0.85


def network_file(file: Path, change: Callable[[dict[str, torch.Tensor]], Any], **how: Any) -> nn.Module:
    """A small Open-Sora 1.0 of random numbers, and the file of it after a change."""
    network = random_module(MODELS["debug-1.0"].network.build, 3)
    torch.save(change(dict(network.state_dict())), file, **how)
    return network


def without_tables(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("pos_embed")}


def other_tables(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return state | {"pos_embed": torch.ones(1, 48, 48), "pos_embed_temporal": torch.ones(1, 99, 48)}


CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "tables missing": without_tables,
    "tables of another size": other_tables,
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "compiled by blocks": lambda state: {k.replace("attn.", "_orig_mod.attn.", 1): v for k, v in state.items()},
    "both": lambda state: {f"module._orig_mod.{name}": value for name, value in other_tables(state).items()},
    "sharded": lambda state: {f"_fsdp_wrapped_module.{name}": value for name, value in state.items()},
    "wrapped": lambda state: {"epoch": 3, "model_state_dict": without_tables(state)},
    "DeepSpeed": lambda state: {"module": {f"module.{k}": v for k, v in state.items()}, "optimizer": {}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_published_files_of_other_making_are_read(name: str, tmp_path: Path) -> None:
    network = network_file(tmp_path / "w.pth", CHANGES[name], _use_new_zipfile_serialization=name != "wrapped")
    loaded = load_module(MODELS["debug-1.0"].network.build, [tmp_path / "w.pth"], "1.0", published=True)
    for own, other in zip(network.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert own[0] == other[0]
        torch.testing.assert_close(own[1], other[1])


def test_rotary_frequencies_are_computed_too(tmp_path: Path) -> None:
    network = random_module(MODELS["debug-1.2"].network.build, 3)
    state = {name: value for name, value in network.state_dict().items() if name != "rope.freqs"}
    torch.save(state | {"pos_embed.inv_freq": torch.ones(3)}, tmp_path / "w.pth")
    loaded = load_module(
        MODELS["debug-1.2"].network.build, [tmp_path / "w.pth"], "1.2", published=True, dtype=torch.bfloat16
    )
    assert torch.equal(loaded.state_dict()["rope.freqs"], network.state_dict()["rope.freqs"])


def test_what_was_found_in_a_pickle_is_named(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save({"state_dict": build().state_dict(), "best": np.float64(0.5)}, file)
    with pytest.raises(WeightsError, match=r"w\.pth holds more than tensors \(numpy[\w.]*\.scalar\), which"):
        load_module(build, [file], "test")
    torch.save({"state": 3}, file)
    with pytest.raises(WeightsError, match=r"w\.pth holds no state dict"):
        load_module(build, [file], "test")


@pytest.mark.parametrize("old", [False, True])
def test_half_a_download_is_named(old: bool, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(build().state_dict(), file, _use_new_zipfile_serialization=not old)
    whole = file.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 3):
        file.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"weights file w\.pth is (damaged or incomplete|no pickle)") as caught:
            load_module(build, [file], "test")
        assert "\x1b" not in str(caught.value)
        assert len(str(caught.value)) < 250
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"w\.safetensors is damaged or incomplete"):
        load_module(build, [tmp_path / "w.safetensors"], "test")


@pytest.mark.parametrize("data", [b"", b"\x00\xff nothing", b'{"model": 7}', b"[]", None])
@pytest.mark.parametrize("name", ["tokenizer.json", "spiece.model"])
def test_a_damaged_tokenizer_is_named(name: str, data: bytes | None, tmp_path: Path) -> None:
    """`None` is a file that was cut off in the middle."""
    assert isinstance(NANO.weights, WeightFiles)
    whole = (ASSETS / NANO.weights.folder / NANO.weights.tokenizer).read_bytes()
    file = tmp_path / name
    file.write_bytes(whole[: len(whole) // 2] if data is None else data)
    readers: list[Callable[[], object]] = [lambda: read_tokenizer(file), lambda: _tokenizer(file)]
    readers += [lambda: ClipTextEncoder(ClipConfig(), file)]
    for read in readers if name == "tokenizer.json" else readers[:1]:
        with pytest.raises(WeightsError, match=f"the weights file {name} is damaged or incomplete") as raised:
            read()
        assert str(tmp_path) not in str(raised.value)
