"""The transformer and its parts: shapes, masks, positions, and what is computed once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from opensora_demo.models.stdit3 import STDiT3, STDiT3Config
from opensora_demo.nn.attention import attend
from opensora_demo.nn.patch import PatchEmbed3D, unpatchify
from opensora_demo.nn.rope import RotaryFrequencies, rotate_pairs

CFG = STDiT3Config(
    in_channels=4, width=32, depth=2, heads=2, text_channels=16, max_tokens=8, base_px=32, pooled_text=True
)


@pytest.fixture
def network() -> STDiT3:
    torch.manual_seed(0)
    net = STDiT3(CFG)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return net.eval().requires_grad_(False)


def call(net: STDiT3, x: Tensor, y: Tensor, lengths: Tensor | None = None, **kw: object) -> Tensor:
    b = x.shape[0]
    return net(
        x,
        torch.full((b,), 500.0),
        net.project_text(y, lengths),
        fps=torch.full((b,), 8.0),
        height_px=32,
        width_px=32,
        **kw,  # type: ignore[arg-type]
    )


def test_padding_of_the_text_changes_nothing(network: STDiT3) -> None:
    x, y = torch.randn(1, 4, 3, 4, 4), torch.randn(1, 5, 16)
    padded = torch.cat([y, torch.randn(1, 3, 16)], 1)
    torch.testing.assert_close(call(network, x, y), call(network, x, padded, torch.tensor([5])))


def test_prompts_of_different_length_in_one_batch(network: STDiT3) -> None:
    x, y = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 6, 16)
    both = call(network, x, y, torch.tensor([6, 2]))
    torch.testing.assert_close(both[1:], call(network, x[1:], y[1:, :2]), atol=1e-5, rtol=1e-4)


def test_output_has_the_size_of_the_input_when_patches_do_not_fit(network: STDiT3) -> None:
    assert call(network, torch.randn(1, 4, 3, 5, 7), torch.randn(1, 4, 16)).shape == (1, 8, 3, 5, 7)


def test_a_mask_that_gives_no_frame_is_no_mask(network: STDiT3) -> None:
    x, y = torch.randn(1, 4, 3, 4, 4), torch.randn(1, 4, 16)
    torch.testing.assert_close(call(network, x, y), call(network, x, y, x_mask=torch.ones(1, 3, dtype=torch.bool)))
    given = call(network, x, y, x_mask=torch.tensor([[False, True, True]]))
    assert not torch.allclose(call(network, x, y), given)


def test_every_condition_reaches_the_output(network: STDiT3) -> None:
    x, y = torch.randn(1, 4, 3, 4, 4), torch.randn(1, 4, 16)
    text = network.project_text(y)
    base = {
        "timestep": torch.tensor([500.0]),
        "text": text,
        "fps": torch.tensor([8.0]),
        "height_px": 32,
        "width_px": 32,
    }
    out = network(x, **base)  # type: ignore[arg-type]
    for change in (
        {"timestep": torch.tensor([400.0])},
        {"text": network.project_text(y + 1)},
        {"fps": torch.tensor([24.0])},
    ):
        assert not torch.allclose(out, network(x, **{**base, **change}))  # type: ignore[arg-type]


def test_short_sequences_take_the_same_numbers_as_the_fused_kernel() -> None:
    q, k, v = torch.randn(3, 4, 2, 5, 8).unbind(0)
    torch.testing.assert_close(attend(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v))


def test_rotation_depends_on_distance_only() -> None:
    table = RotaryFrequencies(8).table(6)
    q, k = torch.randn(8), torch.randn(8)
    scores = rotate_pairs(q.expand(6, 8), table) @ rotate_pairs(k.expand(6, 8), table).T
    torch.testing.assert_close(scores[0, 2], scores[3, 5], atol=1e-5, rtol=1e-4)


def test_patches_and_back() -> None:
    embed = PatchEmbed3D((1, 2, 2), 3, 12)
    torch.nn.init.zeros_(embed.proj.bias)
    embed.proj.weight.data = torch.eye(12).view(12, 3, 1, 2, 2)
    x = torch.randn(2, 3, 2, 4, 6)
    tokens = embed(x)  # (b, t, s, c * 1 * 2 * 2)
    back = unpatchify(tokens.unflatten(-1, (3, 4)).transpose(-1, -2).flatten(-2), (1, 2, 2), (2, 4, 6))
    torch.testing.assert_close(back, x)


def test_text_is_projected_once_for_a_whole_run(nano: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from opensora_demo.bundle import ModelBundle
    from opensora_demo.catalog import NANO
    from opensora_demo.pipeline import run
    from opensora_demo.types import parse_request

    assert isinstance(nano, ModelBundle)
    calls = {"project": 0, "text": 0, "forward": 0}
    network, text = nano.family.network, nano.family.text
    project, forward, encode = network.project_text, network.forward, text.forward

    def count(name: str, f):  # type: ignore[no-untyped-def]
        def counted(*args, **kwargs):  # type: ignore[no-untyped-def]
            calls[name] += 1
            return f(*args, **kwargs)

        return counted

    monkeypatch.setattr(network, "project_text", count("project", project))
    monkeypatch.setattr(network, "forward", count("forward", forward))
    monkeypatch.setattr(text, "forward", count("text", encode))
    for scale in (4, 1, 0):
        calls.update(project=0, text=0, forward=0)
        request = parse_request(
            {"prompt": "a red ball", "steps": 6, "guidance": scale}, model_id="nano", limits=NANO.limits
        )
        run(nano, request)
        assert calls == {"project": 1, "text": 1, "forward": 6}
