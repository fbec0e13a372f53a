"""Self-attention over one axis and cross-attention to text, in plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.nn.peers import TokenShards
from opensora_demo.nn.rope import RotaryTable, rotate_pairs

_SHORT = 16  # below this many tokens two batched products beat the fused kernel on a CPU (3 x in bfloat16)
_FEW = 64  # up to so many keys the fused kernel's backward pass on a CPU is the slower one (4 x in bfloat16)


AttentionKernel = Literal["auto", "fused", "plain"]
"""How attention is computed. "plain": two batched products with the scores between them, in memory. "fused": torch's
scaled_dot_product_attention, which never holds all scores. "auto": fused, but for the few tokens where plain is faster
on a CPU.

The articles' option enable_flash_attn is refused outside of half precision, because the flash-attn package is. torch's
fused kernels are not: on a CPU they take float32 too, and on a GPU torch takes its memory-efficient one there. So no
dtype is refused."""


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in float32. eps 1e-6 (Open-Sora v1.2.0, LlamaRMSNorm)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), 1e-6).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, kernel: AttentionKernel = "auto") -> Tensor:
    """softmax(q k^T / sqrt(d)) v for (b, heads, n, d); `mask` is boolean, broadcastable to (b, heads, n, n_keys)."""
    trained = torch.is_grad_enabled() and q.requires_grad and k.shape[2] <= _FEW
    few = q.device.type == "cpu" and (trained or (q.shape[2] <= _SHORT and mask is None))
    if kernel == "plain" or (kernel == "auto" and few):
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Attention(nn.Module):
    """What computes attention itself, with the kernel that `set_attention_kernel` chose."""

    kernel: AttentionKernel = "auto"


def set_attention_kernel(module: nn.Module, kernel: AttentionKernel) -> None:
    """Choose how every attention within `module` is computed; "auto" leaves each as it was built."""
    for part in module.modules():
        if isinstance(part, Attention) and kernel != "auto":
            part.kernel = kernel


class SelfAttention(Attention):
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

    def forward(
        self,
        x: Tensor,
        rope: RotaryTable | None = None,
        mask: Tensor | None = None,
        shards: TokenShards | None = None,
    ) -> Tensor:
        """`mask` (b, 1, 1, n) is False for keys that do not count. With `shards` x is this process's part of the
        tokens, and there is neither `rope` nor `mask`."""
        # Sequences that do not lie one after the other would be multiplied by a copy of the weights each.
        q, k, v = rearrange(self.qkv(x.contiguous()), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        if rope is not None and self.rotate_first:
            q, k = rotate_pairs(q, rope), rotate_pairs(k, rope)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None and not self.rotate_first:
            q, k = rotate_pairs(q, rope), rotate_pairs(k, rope)
        if shards is not None:
            out = shards.attend(q, k, v, partial(attend, kernel=self.kernel))
        else:
            out = attend(q, k, v, mask, kernel=self.kernel)
        return self.proj(rearrange(out, "b h n d -> b n (h d)"))


@dataclass(frozen=True, slots=True)
class TextKeys:
    """Keys and values of a prompt for every block, computed once and used at every step.

    keys, values: one (b, heads, n, d) a block; mask (b, 1, 1, n) where prompts differ in length, else None.
    Where text joins the sequence of the video there are no keys, but tokens (b, n, width).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor | None
    tokens: Tensor | None = None

    def select(self, index: list[int]) -> TextKeys:
        """The entries of the batch named by `index`, in that order, repeats allowed; copied only where they differ."""
        first = self.keys[0] if self.tokens is None else self.tokens
        if index == list(range(len(first))):
            return self
        same = len(set(index)) == 1

        def pick(x: Tensor) -> Tensor:
            return x[index[0] : index[0] + 1].expand(len(index), *x.shape[1:]) if same else x[index]

        return TextKeys(
            tuple(map(pick, self.keys)),
            tuple(map(pick, self.values)),
            None if self.mask is None else pick(self.mask),
            None if self.tokens is None else pick(self.tokens),
        )


class CrossAttention(Attention):
    """Attention of video tokens (b, n, d) to text tokens, whose keys and values come from `project_text`.

    Open-Sora packs prompts of different lengths with xformers' block-diagonal mask; a boolean (b, 1, 1, n) mask of the
    keys gives the same numbers, and broadcasts: no mask (b, heads, n_video, n) is ever written out. What such tensors
    take, and which of them comes to 1000 GB, is in `nn.mask_cost`.
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

    def forward(
        self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, weights: list[Tensor] | None = None
    ) -> Tensor:
        """Appends its weights (b, n_video, n_text), the mean over the heads, to `weights` where there is such a list:
        training may ask something of them."""
        q = rearrange(self.q_linear(x), "b n (h d) -> b h n d", h=self.heads)
        if weights is not None:
            scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            share = (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(-1)
            weights.append(share.mean(1))
            return self.proj(rearrange(share @ v, "b h n d -> b n (h d)"))
        return self.proj(rearrange(attend(q, k, v, mask, kernel=self.kernel), "b h n d -> b n (h d)"))
