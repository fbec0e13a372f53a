"""Self-attention over one axis and cross-attention to text, in plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.nn.rope import RotaryTable, rotate_pairs

_SHORT = 16  # below this many tokens two batched products beat the fused kernel on a CPU (3 x in bfloat16)
_FEW = 64  # up to so many keys the fused kernel's backward pass on a CPU is the slower one (4 x in bfloat16)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in float32. eps 1e-6 (Open-Sora v1.2.0, LlamaRMSNorm)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), 1e-6).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for (b, heads, n, d); `mask` is boolean, broadcastable to (b, heads, n, n_keys)."""
    trained = torch.is_grad_enabled() and q.requires_grad and k.shape[2] <= _FEW
    if q.device.type == "cpu" and (trained or (q.shape[2] <= _SHORT and mask is None)):
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class SelfAttention(nn.Module):
    """Multi-head attention over the tokens of x (b, n, d), with QK norm and, if a table is given, rotary positions.

    Normalises q and k first and rotates them afterwards (Open-Sora v1.2.0 opensora/models/layers/blocks.py:176);
    `rotate_first` is the order of 1.1.
    """

    def __init__(self, width: int, heads: int, *, qk_norm: bool = True, rotate_first: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.rotate_first = rotate_first
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = RMSNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rope: RotaryTable | None = None, mask: Tensor | None = None) -> Tensor:
        """`mask` (b, 1, 1, n) is False for keys that do not count."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        if rope is not None and self.rotate_first:
            q, k = rotate_pairs(q, rope), rotate_pairs(k, rope)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None and not self.rotate_first:
            q, k = rotate_pairs(q, rope), rotate_pairs(k, rope)
        return self.proj(rearrange(attend(q, k, v, mask), "b h n d -> b n (h d)"))


@dataclass(frozen=True, slots=True)
class TextKeys:
    """Keys and values of a prompt for every block, computed once and used at every step.

    keys, values: one (b, heads, n, d) a block; mask (b, 1, 1, n) where prompts differ in length, else None;
    pooled (b, width) or None.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor | None
    pooled: Tensor | None = None

    def select(self, index: list[int]) -> TextKeys:
        """The entries of the batch named by `index`, in that order, repeats allowed; copied only where they differ."""
        if index == list(range(len(self.keys[0]))):
            return self
        same = len(set(index)) == 1

        def pick(x: Tensor) -> Tensor:
            return x[index[0] : index[0] + 1].expand(len(index), *x.shape[1:]) if same else x[index]

        return TextKeys(
            tuple(map(pick, self.keys)),
            tuple(map(pick, self.values)),
            None if self.mask is None else pick(self.mask),
            None if self.pooled is None else pick(self.pooled),
        )


class CrossAttention(nn.Module):
    """Attention of video tokens (b, n, d) to text tokens, whose keys and values come from `project_text`.

    Open-Sora packs prompts of different lengths with xformers' block-diagonal mask; a boolean (b, 1, 1, n) mask
    gives the same numbers and stays linear in the length. (Expanding it to (b, 1, n_video, n_text), as an early
    version did, took about 1 TB for one 32-frame 512 px clip.)
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(width, width)
        self.kv_linear = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def project_text(self, y: Tensor) -> tuple[Tensor, Tensor]:
        k, v = rearrange(self.kv_linear(y), "b n (two h d) -> two b h n d", two=2, h=self.heads)
        return k, v

    def forward(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q = rearrange(self.q_linear(x), "b n (h d) -> b h n d", h=self.heads)
        return self.proj(rearrange(attend(q, k, v, mask), "b h n d -> b n (h d)"))
