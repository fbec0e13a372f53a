"""The transformer and its parts: shapes, masks, positions, and what is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from opensora_demo.catalog import find_model
from opensora_demo.explain.attention import Recorder, count_weights
from opensora_demo.families.adapters.stdit3 import STDiT3Adapter
from opensora_demo.models.stdit3 import Conditioning, STDiT3, STDiT3Config
from opensora_demo.nn.attention import Attention, AttentionKernel, attend, set_attention_kernel
from opensora_demo.nn.patch import PatchEmbed3D, unpatchify
from opensora_demo.nn.rope import RotaryFrequencies, rotate_pairs
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.weights.options import WeightOptions

KERNELS: tuple[AttentionKernel, ...] = get_args(AttentionKernel)
NAMES = {"SelfAttention", "CrossAttention"}
CFG = STDiT3Config(in_channels=4, width=32, depth=2, heads=2, text_channels=16, max_tokens=8, base_px=32)


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


@pytest.mark.parametrize("conditioning", ["concatenation", "replacement"])
class TestOtherConditioning:
    """Text beside the patches of every frame, or in the place of attention among patches."""

    @pytest.fixture
    def network(self, conditioning: Conditioning) -> STDiT3:
        torch.manual_seed(0)
        net = STDiT3(replace(CFG, conditioning=conditioning))
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.1)
        return net.eval().requires_grad_(False)

    def test_the_text_matters_and_its_padding_does_not(self, network: STDiT3) -> None:
        x, y = torch.randn(1, 4, 3, 4, 4), torch.randn(1, 5, 16)
        out = call(network, x, y)
        assert out.shape == (1, 8, 3, 4, 4)
        padded = torch.cat([y, torch.randn(1, 3, 16)], 1)
        torch.testing.assert_close(out, call(network, x, padded, torch.tensor([5])), atol=1e-5, rtol=1e-4)
        assert (out - call(network, x, y.roll(1, 2))).abs().max() > 1e-3

    def test_prompts_in_one_batch(self, network: STDiT3) -> None:
        x, y = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 6, 16)
        both = call(network, x, y, torch.tensor([6, 2]))
        torch.testing.assert_close(both[1:], call(network, x[1:], y[1:, :2]), atol=1e-5, rtol=1e-4)
        text = network.project_text(y, torch.tensor([6, 2]))
        chosen = text.select([1, 1, 0])
        options = {"fps": torch.full((3,), 8.0), "height_px": 32, "width_px": 32}
        rows = network(x[[1, 1, 0]], torch.full((3,), 500.0), chosen, **options)
        torch.testing.assert_close(rows, both[[1, 1, 0]], atol=1e-5, rtol=1e-4)
        assert text.select([0, 1]) is text


def reach(net: STDiT3) -> Tensor:
    """Which patches (t, h, w) of the output change when the first patch of the first frame does."""
    x, y = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(1)), torch.ones(1, 3, 16)
    other = x.clone()
    other[:, :, 0, :2, :2] += 1
    change = (call(net, x, y) - call(net, other, y)).abs().amax(1)[0]
    return torch.nn.functional.max_pool3d(change[None], (1, 2, 2))[0] > 1e-6


def test_without_self_attention_patches_of_a_frame_know_nothing_of_each_other() -> None:
    reached = {}
    for conditioning in get_args(Conditioning):
        torch.manual_seed(0)
        net = STDiT3(replace(CFG, conditioning=conditioning)).eval().requires_grad_(False)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.1)
        reached[conditioning] = reach(net)
    assert reached["cross-attention"].all()
    assert reached["concatenation"].all()
    expected = torch.zeros(2, 2, 2, dtype=torch.bool)
    expected[:, 0, 0] = True  # the same place at all times
    assert torch.equal(reached["replacement"], expected)


def test_the_parts_of_a_block_are_those_it_uses() -> None:
    names = {c: set(STDiT3(replace(CFG, conditioning=c)).state_dict()) for c in get_args(Conditioning)}
    lost = {c: {n.split(".", 2)[2] for n in names["cross-attention"] - of} for c, of in names.items()}
    assert not any(of - names["cross-attention"] for of in names.values())
    assert all(n.startswith("cross_attn.") for n in lost["concatenation"])
    assert all(n.startswith("attn.") for n in lost["replacement"])
    assert lost["concatenation"]
    assert lost["replacement"]
    assert any(n.startswith("temporal_blocks.0.attn.") for n in names["replacement"])


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


class ArticlePatchEmbed(nn.Module):
    """PatchEmbed3D of "Open-Sora code in detail (1): the structure of the DiT", retyped."""

    def __init__(self, patch_size: Any = (2, 4, 4), in_chans: int = 3, embed_dim: int = 96, norm_layer: Any = None,
                 flatten: bool = True) -> None:  # fmt: skip
        super().__init__()
        self.patch_size, self.flatten, self.embed_dim = patch_size, flatten, embed_dim
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = norm_layer(embed_dim) if norm_layer is not None else None

    def forward(self, x: Tensor) -> Tensor:
        _, _, d, h, w = x.size()
        if w % self.patch_size[2] != 0:
            x = F.pad(x, (0, self.patch_size[2] - w % self.patch_size[2]))
        if h % self.patch_size[1] != 0:
            x = F.pad(x, (0, 0, 0, self.patch_size[1] - h % self.patch_size[1]))
        if d % self.patch_size[0] != 0:
            x = F.pad(x, (0, 0, 0, 0, 0, self.patch_size[0] - d % self.patch_size[0]))
        x = self.proj(x)  # (B C T H W)
        if self.norm is not None:
            d, wh, ww = x.size(2), x.size(3), x.size(4)
            x = x.flatten(2).transpose(1, 2)
            x = self.norm(x)
            x = x.transpose(1, 2).view(-1, self.embed_dim, d, wh, ww)
        if self.flatten:
            x = x.flatten(2).transpose(1, 2)  # BCTHW -> BNC
        return x


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("norm", [None, nn.LayerNorm])
@pytest.mark.parametrize("sizes", [{}, {"patch": (1, 2, 2), "channels": 4, "width": 48}], ids=str)
def test_patches_are_the_articles(sizes: Any, norm: Any, flatten: bool) -> None:
    torch.manual_seed(0)
    ours = PatchEmbed3D(**sizes, norm=norm, flatten=flatten)
    theirs = ArticlePatchEmbed(*sizes.values(), norm_layer=norm, flatten=flatten)
    if norm is not None:
        ours.norm.weight.data.normal_()  # type: ignore[union-attr, operator]
        ours.norm.bias.data.normal_()  # type: ignore[union-attr, operator]
    theirs.load_state_dict(ours.state_dict())
    for size in ((4, 8, 8), (3, 5, 10), (1, 9, 4)):
        x = torch.randn(2, ours.proj.in_channels, *size)
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    plain = PatchEmbed3D(**sizes, norm=norm)
    plain.load_state_dict(ours.state_dict())
    row = ours(x) if flatten else ours(x).flatten(2).transpose(1, 2)
    assert torch.equal(plain(x).flatten(1, 2), row)  # what the networks take keeps frames apart


def count_fused(run: Callable[[], object]) -> int:
    """How often torch's fused attention is asked for."""
    with FusedCalls() as seen:
        run()
    return seen.fused


class FusedCalls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.fused = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.fused += func is F.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [4, 40])
def test_the_kernel_is_the_one_that_was_chosen(tokens: int, dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(1, 2, tokens, 8, dtype=dtype) for _ in range(3))
    called = {kernel: count_fused(lambda kernel=kernel: attend(q, k, v, kernel=kernel)) for kernel in KERNELS}
    assert called == {"auto": int(tokens > 16), "fused": 1, "plain": 0}
    close = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}
    torch.testing.assert_close(attend(q, k, v, kernel="plain"), attend(q, k, v, kernel="fused"), **close)


@pytest.mark.parametrize("model", ["debug-1.0-dit", "debug-1.0", "debug-1.1", "debug-1.2", "debug-1.3", "debug-2.0"])
def test_the_option_reaches_every_attention_of_a_network(model: str) -> None:
    found = {}
    for kernel in KERNELS:
        network = find_model(model).network.build()
        set_attention_kernel(network, kernel)
        parts = [part for part in network.modules() if isinstance(part, Attention)]
        names = {type(part).__name__ for part in parts}
        assert names == ({"DoubleBlock", "SingleBlock"} if model == "debug-2.0" else names & NAMES), names
        found[kernel] = {part.kernel for part in parts}
    assert found == {"auto": {"fused"} if model == "debug-2.0" else {"auto"}, "fused": {"fused"}, "plain": {"plain"}}


def test_a_bundle_takes_the_option() -> None:
    for kernel in ("auto", "plain"):
        bundle = build_bundle(find_model("debug-1.2"), options=WeightOptions(attention=kernel))  # type: ignore[arg-type]
        network = bundle.family.network
        assert {part.kernel for part in network.modules() if isinstance(part, Attention)} == {kernel}


@pytest.mark.slow
def test_text_is_projected_once_for_a_whole_run(nano: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from opensora_demo.catalog import NANO
    from opensora_demo.pipeline import run
    from opensora_demo.request.parse import parse_request
    from opensora_demo.runtime.bundle import ModelBundle

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


@pytest.mark.parametrize("conditioning", get_args(Conditioning))
def test_attention_can_be_seen_however_text_comes_in(conditioning: Conditioning) -> None:
    torch.manual_seed(0)
    net = STDiT3(replace(CFG, conditioning=conditioning)).eval().requires_grad_(False)
    adapter, grid, words = STDiT3Adapter(net), (3, 2, 2), 5
    with Recorder(adapter, grid) as recorder:
        call(net, torch.randn(1, 4, 3, 4, 4), torch.randn(1, words, 16))
    maps = recorder.maps
    kinds = [m.kind for m in maps if m.layer == 0]
    assert (
        kinds
        == {
            "cross-attention": ["space", "text", "time", "text"],
            "concatenation": ["text", "space", "time"],
            "replacement": ["text", "time", "text"],
        }[conditioning]
    )
    shapes = {"space": (3, 2, 4, 4), "time": (4, 2, 3, 3), "text": (2, 12, words)}
    for found in maps:
        assert found.weights.shape == shapes[found.kind]
    counted = count_weights(adapter.attention_sites(), adapter.heads, grid, words)
    assert counted == sum(m.weights.numel() for m in maps)
    if conditioning == "concatenation":  # two parts of the same rows
        text, space = maps[0].weights, maps[1].weights
        rows = text.sum(-1).unflatten(1, (3, 4)) + space.sum(-1).movedim(1, 0)
        torch.testing.assert_close(rows, torch.ones(2, 3, 4))
