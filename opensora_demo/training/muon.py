"""Muon: momentum whose matrix updates are orthogonalised, with AdamW for everything that is not a matrix.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the update is scaled to the
RMS of AdamW's as in Liu et al., "Muon is scalable for LLM training" (2025), section 2.2, so that one learning rate
serves both. Convolution kernels count as matrices (out, in * k...).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from opensora_demo.training.precision import bfloat16_wins

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic whose iteration drives singular values to about 1
_MATCH_ADAMW_RMS = 0.2


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix of g (m, n) by Newton-Schulz iteration, singular values about 1; in bfloat16
    where that is faster."""
    a, b, c = _NEWTON_SCHULZ
    x = g.bfloat16() if g.is_cuda or bfloat16_wins() else g
    wide = x if x.shape[0] <= x.shape[1] else x.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return (wide if x.shape[0] <= x.shape[1] else wide.T).to(g.dtype)


def is_matrix(name: str, p: nn.Parameter) -> bool:
    """Tables, embeddings, depthwise kernels and the smallest tensors are left to AdamW."""
    if p.ndim > 2 and p.shape[1] == 1:
        return False
    return p.ndim >= 2 and "embedding" not in name and "table" not in name and min(p.shape[0], p[0].numel()) >= 16


class Muon(torch.optim.Optimizer):
    """`named` parameters of one model; with torch.distributed running, the workers share the orthogonalisations."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        adam_lr_ratio: float = 0.5,
        only: str = "",
    ) -> None:
        """`only` leaves matrices whose name does not have it in it to AdamW."""
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, p in named:
            (matrices if only in name and is_matrix(name, p) else others).append(p)
        defaults: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "betas": betas}
        super().__init__(
            [
                {"params": matrices, "matrix": True, "ratio": 1.0},
                {"params": others, "matrix": False, "ratio": adam_lr_ratio},
            ],
            defaults,
        )

    def set_lr(self, lr: float) -> None:
        for group in self.param_groups:
            group["lr"] = lr * group["ratio"]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            if not group["params"]:
                continue
            (self._muon if group["matrix"] else self._adamw)(group)

    def _muon(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        rank, workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        updates = torch.zeros(sum(p.numel() for p in params), dtype=torch.bfloat16 if workers > 1 else torch.float32)
        updates = updates.to(params[0].device)
        at = 0
        for i, p in enumerate(params):
            buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
            buffer.lerp_(p.grad, 1 - group["momentum"])
            if i % workers == rank:
                g = p.grad.lerp(buffer, group["momentum"]).flatten(1)  # Nesterov
                u = orthogonalise(g) * (_MATCH_ADAMW_RMS * max(g.shape) ** 0.5)
                updates[at : at + p.numel()] = u.flatten()
            at += p.numel()
        if workers > 1:
            dist.all_reduce(updates)
        at = 0
        for p in params:
            u = updates[at : at + p.numel()].view(p.shape).float()
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(u, alpha=-group["lr"])
            at += p.numel()

    def _adamw(self, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"], state["mean"], state["square"] = 0, torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            state["mean"].lerp_(p.grad, 1 - beta1)
            state["square"].lerp_(p.grad.square(), 1 - beta2)
            mean = state["mean"] / (1 - beta1 ** state["step"])
            square = state["square"] / (1 - beta2 ** state["step"])
            p.add_(mean / (square.sqrt() + 1e-8), alpha=-group["lr"])
