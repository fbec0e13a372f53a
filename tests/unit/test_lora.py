"""LoRA files on Open-Sora 2.0: applied live, they do what merging them into the weights would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.synthetic import write_checkpoint
from opensora_demo.catalog import MODELS, ModelSpec
from opensora_demo.cli import main
from opensora_demo.errors import WeightsError
from opensora_demo.messages import render
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import build_bundle, build_network
from opensora_demo.service.links import checked_settings
from opensora_demo.ui.controls import model_note
from opensora_demo.weights.lora import LoraFile, _by_layer, add_lora, lora_names, loras_for
from opensora_demo.weights.options import WeightOptions
from tests.unit.checkpoints import CPU, clip_of, options_of, published

LAYERS = ("double_blocks.0.img_attn.q_proj", "double_blocks.0.txt_mlp.0", "single_blocks.0.linear2")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def thin(rank: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(rank, 8), torch.randn(12, rank)


@pytest.mark.parametrize(
    ("names", "config", "scale"),
    [
        ("base_model.model.first.lora_{AB}.weight", {"r": 2, "lora_alpha": 6}, 3.0),
        ("base_model.model.first.lora_{AB}.default.weight", {"lora_alpha": 6, "use_rslora": True}, 6 / 2**0.5),
        ("diffusion_model.first.lora_{AB}.weight", None, 1.0),
        ("transformer.first.lora_{du}.weight", 4.0, 2.0),
        ("base_model.model.first.lora_{AB}.weight", {"lora_alpha": 4, "alpha_pattern": {"first": 16}}, 8.0),
        ("base_model.model.first.lora_{AB}.weight", {"lora_alpha": None}, 1.0),
        ("base_model.model.first.lora_{AB}.weight", {"lora_alpha": 4, "base": "D:\\模型"}, 2.0),
        ("first.lora_{AB}.style.weight", None, 1.0),
        ("transformer.first.lora.{du}.weight", None, 1.0),
        ("lora_unet_first.lora_{du}.weight", None, 1.0),
        ("lora_transformer_first.lora_{AB}.weight", None, 1.0),
    ],
)
def test_it_equals_merged_weights(tmp_path: Path, names: str, config: Any, scale: float) -> None:
    torch.manual_seed(0)
    network, x = Small(), torch.randn(5, 8)
    (a, b), file = thin(), tmp_path / ("adapter_model.safetensors" if isinstance(config, dict) else "style.safetensors")
    one = names.replace("{AB}", "A").replace("{du}", "down")
    two = names.replace("{AB}", "B").replace("{du}", "up")
    tensors = {one: a, two: b}
    if isinstance(config, dict):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config, ensure_ascii=False), "utf-8")
    elif config is not None:
        tensors["transformer.first.alpha"] = torch.tensor(config)
    save_file(tensors, file)
    wanted = network.second(network.first(x) + 0.5 * scale * x @ a.T @ b.T)
    assert add_lora(network, LoraFile(file, 0.5)) == 1
    torch.testing.assert_close(network(x), wanted)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16])
def test_numbers_of_8_and_16_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, x, (a, b) = Small(), torch.randn(5, 8), (part.to(dtype) for part in thin())
    tensors = {"lora_unet_first.lora_down.weight": a, "lora_unet_first.lora_up.weight": b}
    save_file(tensors | {"lora_unet_first.alpha": torch.tensor(4.0).to(dtype)}, tmp_path / "style.safetensors")
    wanted = network.second(network.first(x) + 2 * x @ a.float().T @ b.float().T)
    assert add_lora(network, LoraFile(tmp_path / "style.safetensors")) == 1
    torch.testing.assert_close(network(x), wanted)


def test_both_namings_are_the_same_layers(tmp_path: Path) -> None:
    """Of a network whose names have "_" in them, and dots."""
    network = build_network(published("debug-2.0").network)
    plain, kohya = {}, {}
    for name in LAYERS:
        linear = network.get_submodule(name)
        for side, peft, shape in (("down", "A", (4, linear.in_features)), ("up", "B", (linear.out_features, 4))):
            plain[f"diffusion_model.{name}.lora_{peft}.weight"] = value = torch.randn(shape)
            kohya[f"lora_unet_{name.replace('.', '_')}.lora_{side}.weight"] = value
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    (one, none), (two, nothing) = _by_layer(plain, linears), _by_layer(kohya, linears)
    assert none == nothing == []
    assert {*one} == {*two} == {*LAYERS}
    assert all(torch.equal(one[name][side], two[name][side]) for name in LAYERS for side in "ab")


def test_a_configuration_that_is_none(tmp_path: Path) -> None:
    a, b = thin()
    save_file({"first.lora_A.weight": a, "first.lora_B.weight": b}, tmp_path / "adapter_model.safetensors")
    config = tmp_path / "adapter_config.json"
    for text in ("{", "[]", '{"lora_alpha": "much"}', '{"alpha_pattern": 3}', '{"alpha_pattern": {"(": 3}}'):
        config.write_text(text)
        with pytest.raises(WeightsError, match="is no configuration of a LoRA"):
            add_lora(Small(), LoraFile(tmp_path))
    save_file({"first.lora_A.weight": a, "first.lora_B.weight": b}, tmp_path / "own.safetensors")
    assert add_lora(Small(), LoraFile(tmp_path / "own.safetensors")) == 1  # another file's configuration is not its own
    (tmp_path / "style.pt").write_bytes(b"a pickle")
    with pytest.raises(WeightsError, match=r"style\.pt is no safetensors file"):
        add_lora(Small(), LoraFile(tmp_path / "style.pt"))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    a, b = thin()
    file = tmp_path / "style.safetensors"
    with pytest.raises(WeightsError, match=r"there is no LoRA file .*style\.safetensors"):
        add_lora(Small(), LoraFile(file))
    for tensors, sentence in (
        ({"lora_unet_third.lora_down.weight": a}, "not for this model: it names lora_unet_third"),
        ({"lora_te_first.lora_down.weight": a}, "not for this model: it names lora_te_first"),
        ({"third.lora_A.weight": a, "third.lora_B.weight": b}, "not for this model: it names third"),
        ({"first.lora_A.weight": a}, "does not fit first"),
        ({"first.lora_A.weight": a, "first.lora_B.weight": b, "first.alpha": a.clone()}, "does not fit first"),
        ({"second.lora_A.weight": a, "second.lora_B.weight": b}, "does not fit second"),
    ):
        save_file(tensors, file)
        network = Small()
        with pytest.raises(WeightsError, match=sentence):
            add_lora(network, LoraFile(file))


def write_lora(spec: ModelSpec, folder: Path) -> Path:
    """As peft writes one for 2.0."""
    network = build_network(spec.network)
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for name in LAYERS:
        linear = network.get_submodule(name)
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(4, linear.in_features)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(linear.out_features, 4)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 4}))
    return folder


def test_a_clip_with_a_lora(weights: Path, tmp_path: Path) -> None:
    spec = published("debug-2.0")
    write_checkpoint(spec, weights)
    plain = clip_of(spec, options_of(weights))
    folder = write_lora(spec, tmp_path / "watercolour")
    added = options_of(weights, loras=(LoraFile(folder),))
    drawn = clip_of(spec, added)
    assert np.abs(drawn.astype(int) - plain).mean() > 1
    assert np.array_equal(clip_of(spec, replace(added, placement="streamed")), drawn)
    nothing = options_of(weights, loras=(LoraFile(folder, 0),))
    assert np.array_equal(clip_of(spec, nothing), plain)
    bundle = build_bundle(spec, CPU, nothing)
    asked = parse_request({"prompt": "a ball", "steps": 2, "seed": 3}, model_id=spec.id, limits=spec.limits)
    assert np.array_equal(run(bundle, asked).clips[0].frames, plain)


def test_it_is_said_and_recorded(tmp_path: Path) -> None:
    loras = (LoraFile(tmp_path / "ink.safetensors"), LoraFile(tmp_path / "wash", 0.5))
    spec, options = MODELS["opensora-2.0"], WeightOptions(loras=loras)
    assert lora_names(spec, loras) == ("ink", "wash x 0.5")
    assert "LoRA: ink, wash x 0.5." in render(model_note(spec, options))
    assert loras_for(MODELS["opensora-1.2"], loras) == ()  # it is for 2.0
    _, ignored = checked_settings({"model": spec.id, "prompt": "a ball", "lora": ["ink"]}, options=options)
    assert [*map(render, ignored)] == ["the LoRA, which is not loaded here"]
    _, ignored = checked_settings(
        {"model": spec.id, "prompt": "a ball", "lora": ["ink", "wash x 0.5"]}, options=options
    )
    assert ignored == []


def test_the_command_line_refuses_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate", "a ball", "--out", str(tmp_path / "a.mp4"), "--lora", str(tmp_path / "none.safetensors")]
    assert main(command) == 2
    assert "error: --lora: there is no LoRA file" in capsys.readouterr().err
