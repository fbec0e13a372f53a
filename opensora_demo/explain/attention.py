"""Who attends to whom: the attention weights of a real call, read by hooks that change nothing.

The hooks see the queries and keys that the network itself made (normalised, and rotated here as the module does next),
so what is shown is softmax(q k^T / sqrt(d)) of that very call and not of a second one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, assert_never

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from opensora_demo.families.adapters.base import (
    Adapter,
    AttentionSite,
    CrossAttentionSite,
    JointAttentionSite,
    Keys,
    SelfAttentionSite,
)
from opensora_demo.nn.rope import RotaryTable, rotate_pairs

Kind = Keys | Literal["text"]
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


def count_weights(sites: Iterable[AttentionSite], heads: int, grid: Grid, words: int) -> int:
    """How many attention weights one call has, all blocks and heads together."""
    t, s = grid[0], grid[1] * grid[2]
    tokens = t * s
    keys: Mapping[Keys, int] = {"space": s, "time": t, "all": tokens}
    count = 0
    for site in sites:
        match site:
            case SelfAttentionSite():
                count += tokens * (keys[site.keys] + (words if site.words else 0))
            case CrossAttentionSite():
                count += tokens * words
            case JointAttentionSite():
                count += tokens * (tokens + words)
            case never:
                assert_never(never)
    return heads * count


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

    def __init__(self, adapter: Adapter[Any, Any], grid: Grid) -> None:
        self.maps: list[Map] = []
        self._adapter = adapter
        self._grid = grid
        self._batch = 1
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Recorder:
        self._hooks.append(self._adapter.network.register_forward_pre_hook(self._begin))
        for site in self._adapter.attention_sites():
            match site:
                case SelfAttentionSite():
                    self._watch_self(site)
                case CrossAttentionSite():
                    self._watch_cross(site)
                case JointAttentionSite():
                    self._watch_joint(site)
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

    def _watch_self(self, site: SelfAttentionSite) -> None:
        module, window = site.module, site.window
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
            patches = self._grid[1] * self._grid[2]
            if site.words:
                of_text = weights[:, :, :patches, patches:]
                self._keep(site.layer, "text", rearrange(of_text, "t h s n -> h (t s) n"))
                weights = weights[:, :, :patches, :patches]
            if site.keys == "time":
                weights = weights[:patches]
            self._keep(site.layer, site.keys, weights[0] if site.keys == "all" and window is None else weights)

        self._after(module, keep)

    def _watch_cross(self, site: CrossAttentionSite) -> None:
        module = site.module
        seen: dict[str, Tensor] = {}
        self._output(module.q_linear, seen, "q")

        def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            _, k, _, mask = args
            q = rearrange(seen["q"][0], "n (h d) -> h n d", h=module.heads)
            self._keep(site.layer, "text", weights_of(q, k[0], None if mask is None else mask[0]))

        self._after(module, keep)

    def _watch_joint(self, site: JointAttentionSite) -> None:
        """Text tokens first, then the clip's; the rows of the clip's are kept."""
        seen: dict[str, Tensor] = {}
        for i, (query_norm, key_norm) in enumerate(site.norms):
            self._output(query_norm, seen, f"q{i}")
            self._output(key_norm, seen, f"k{i}")

        def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rope: RotaryTable = args[-1]
            streams = range(len(site.norms))
            q, k = (site.rotate(torch.cat([seen[f"{name}{i}"][:1] for i in streams], dim=2), rope) for name in "qk")
            words = q.shape[2] - self._grid[0] * self._grid[1] * self._grid[2]
            weights = weights_of(q[0, :, words:], k[0])
            self._keep(site.layer, "all", weights[..., words:])
            self._keep(site.layer, "text", weights[..., :words])

        self._after(site.block, keep)


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
