"""Who attends to whom: the attention weights of a real call, read by hooks that change nothing.

The hooks see the queries and keys that the network itself made (normalised, and rotated here as the module does next),
so what is shown is softmax(q k^T / sqrt(d)) of that very call and not of a second one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, assert_never

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from opensora_demo.bundle import Network
from opensora_demo.models.dit import DiT
from opensora_demo.models.mmdit import DoubleBlock, MMDiT, SingleBlock
from opensora_demo.models.stdit import STDiT
from opensora_demo.models.stdit2 import STDiT2
from opensora_demo.models.stdit3 import STDiT3
from opensora_demo.models.stdit3_v13 import STDiT3V13
from opensora_demo.nn.attention import CrossAttention, SelfAttention
from opensora_demo.nn.patch import patch_grid
from opensora_demo.nn.rope import RotaryTable, rotate_halves, rotate_pairs

Kind = Literal["space", "time", "all", "text"]
"""Over which keys: the tokens of the same frame, of the same place, of the whole clip, or of the prompt."""
Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Map:
    """Weights of one attention on the CPU, rows of sum one: of "space" (t, heads, s, s), "time" (s, heads, t, t),
    "all" (heads, t s, t s), "text" (heads, t s, words). Where text and video share a sequence, "all" and "text" of a
    layer are two parts of the same rows and add up to one together."""

    layer: int
    kind: Kind
    weights: Tensor


def token_grid(network: Network, size: Grid) -> Grid:
    """Tokens along (t, h, w) of a latent of that size."""
    patch = network.cfg.patch
    return patch_grid((1, patch, patch) if isinstance(patch, int) else patch, size)


def count_weights(network: Network, grid: Grid, words: int) -> int:
    """How many attention weights one call has, all blocks and heads together."""
    t, s = grid[0], grid[1] * grid[2]
    tokens, over_all = t * s, t * s * t * s
    over_both, text = tokens * (s + t), tokens * words
    match network:
        case DiT():
            weights = network.cfg.depth * (over_both // 2 if network.cfg.alternate else over_all)
        case STDiT():
            weights = network.cfg.depth * ((over_both if network.cfg.temporal else over_all) + text)
        case STDiT2():
            weights = network.cfg.depth * (over_both + text)
        case STDiT3():
            weights = network.cfg.depth * (over_both + 2 * text)
        case STDiT3V13():
            in_time = (over_all if network.cfg.window else tokens * t) + text if network.cfg.temporal else 0
            weights = network.cfg.depth * (tokens * s + text + in_time)
        case MMDiT():
            weights = (network.cfg.depth + network.cfg.depth_single) * (over_all + text)
        case never:
            assert_never(never)
    return network.cfg.heads * weights


def weights_of(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) in float32: q (..., n, d), k (..., m, d) -> (..., n, m); a False of `mask` weighs 0."""
    scores = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1)


class Recorder:
    """While entered, keeps the attention of the first entry of the first batch: the prompt's branch of the first clip.

    `maps` fills in the order of the network. Leaving removes every hook.
    """

    def __init__(self, network: Network, grid: Grid) -> None:
        self.maps: list[Map] = []
        self._network = network
        self._grid = grid
        self._batch = 1
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Recorder:
        self._hooks.append(self._network.register_forward_pre_hook(self._begin))
        match self._network:
            case DiT(cfg=cfg, blocks=blocks):
                for i, block in enumerate(blocks):
                    # A Latte's layer is two blocks, one over space and one over time.
                    kind: Kind = ("time" if i % 2 else "space") if cfg.alternate else "all"
                    self._watch_self(i // 2 if cfg.alternate else i, kind, block.attn)  # type: ignore[arg-type]
            case STDiT() | STDiT2():
                for i, block in enumerate(self._network.blocks):
                    images = isinstance(self._network, STDiT) and not self._network.cfg.temporal
                    self._watch_self(i, "all" if images else "space", block.attn)  # type: ignore[arg-type]
                    if not images:
                        self._watch_self(i, "time", block.attn_temp)  # type: ignore[arg-type]
                    self._watch_cross(i, block.cross_attn)  # type: ignore[arg-type]
            case STDiT3() | STDiT3V13():
                window = self._network.cfg.window if isinstance(self._network, STDiT3V13) else None
                for i, block in enumerate(self._network.spatial_blocks):
                    self._watch_self(i, "space", block.attn)  # type: ignore[arg-type]
                    self._watch_cross(i, block.cross_attn)  # type: ignore[arg-type]
                for i, block in enumerate(getattr(self._network, "temporal_blocks", ())):
                    self._watch_self(i, "all" if window else "time", block.attn, window)
                    self._watch_cross(i, block.cross_attn)
            case MMDiT():
                for i, block in enumerate([*self._network.double_blocks, *self._network.single_blocks]):
                    self._watch_joint(i, block)
            case never:
                assert_never(never)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _begin(self, network: nn.Module, args: tuple[Any, ...]) -> None:
        self._batch = len(args[0])

    def _keep(self, layer: int, kind: Kind, weights: Tensor) -> None:
        self.maps.append(Map(layer, kind, weights.float().cpu()))

    def _output(self, module: Any, seen: dict[str, Tensor], name: str) -> None:
        """Keep the first output of a module under a name."""

        def hook(_module: nn.Module, _args: tuple[Any, ...], out: Tensor) -> None:
            seen.setdefault(name, out)

        self._hooks.append(module.register_forward_hook(hook))

    def _after(self, module: Any, act: Callable[[tuple[Any, ...], dict[str, Any]], None]) -> None:
        """Call `act` once, with the arguments of the module's first call, when that is through."""
        done: list[bool] = []

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _out: Any) -> None:
            if not done:
                done.append(True)
                act(args, kwargs)

        self._hooks.append(module.register_forward_hook(hook, with_kwargs=True))

    def _watch_self(self, layer: int, kind: Kind, module: SelfAttention, window: tuple[int, int] | None = None) -> None:
        seen: dict[str, Tensor] = {}
        self._output(module.q_norm, seen, "q")
        self._output(module.k_norm, seen, "k")

        def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = dict(zip(("x", "rope", "mask"), args, strict=False)) | kwargs
            q, k = (seen[name][: len(seen[name]) // self._batch] for name in ("q", "k"))  # groups of the first entry
            rope, mask = given.get("rope"), given.get("mask")
            if rope is not None and not module.rotate_first:
                q, k = rotate_pairs(q, rope), rotate_pairs(k, rope)
            weights = weights_of(q, k, None if mask is None else mask[: len(q)])
            if window is not None:
                weights = _out_of_windows(weights, self._grid, window)
            self._keep(layer, kind, weights[0] if kind == "all" and window is None else weights)

        self._after(module, keep)

    def _watch_cross(self, layer: int, module: CrossAttention) -> None:
        seen: dict[str, Tensor] = {}
        self._output(module.q_linear, seen, "q")

        def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            _, k, _, mask = args
            q = rearrange(seen["q"][0], "n (h d) -> h n d", h=module.heads)
            self._keep(layer, "text", weights_of(q, k[0], None if mask is None else mask[0]))

        self._after(module, keep)

    def _watch_joint(self, layer: int, block: DoubleBlock | SingleBlock) -> None:
        """Text tokens first, then the clip's; the rows of the clip's are kept."""
        seen: dict[str, Tensor] = {}
        norms = [block.txt_attn.norm, block.img_attn.norm] if isinstance(block, DoubleBlock) else [block.norm]
        for i, norm in enumerate(norms):
            self._output(norm.query_norm, seen, f"q{i}")
            self._output(norm.key_norm, seen, f"k{i}")

        def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rope: RotaryTable = args[-1]
            rotate = rotate_halves if block.halves else rotate_pairs
            q, k = (
                rotate(torch.cat([seen[f"{name}{i}"][:1] for i in range(len(norms))], dim=2), rope) for name in "qk"
            )
            words = q.shape[2] - self._grid[0] * self._grid[1] * self._grid[2]
            weights = weights_of(q[0, :, words:], k[0])
            self._keep(layer, "all", weights[..., words:])
            self._keep(layer, "text", weights[..., :words])

        self._after(block, keep)


def _out_of_windows(weights: Tensor, grid: Grid, window: tuple[int, int]) -> Tensor:
    """Weights within windows (windows, heads, n, n) as weights over the clip (heads, t s, t s), zero elsewhere; the
    padding of windows at the edge drops out. The order within a window is that of `STDiT3V13`."""
    t, h, w = grid
    kh, kw = window
    at = F.pad(torch.arange(t * h * w).view(t, h, w), (0, -w % kw, 0, -h % kh), value=-1)
    at = rearrange(at, "t (r kh) (c kw) -> (r c) (kh kw t)", kh=kh, kw=kw)
    full = weights.new_zeros(weights.shape[1], t * h * w, t * h * w)
    for part, tokens in zip(weights, at, strict=True):
        real = tokens >= 0
        index = tokens[real]
        full[:, index[:, None], index] = part[:, real][:, :, real]
    return full
