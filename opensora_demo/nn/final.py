"""The last layer of the PixArt line of networks (PixArt, STDiT, STDiT2, STDiT3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opensora_demo.nn.modulation import modulate


class FinalLayer(nn.Module):
    """Norm, adaLN from the raw time embedding plus a table of (shift, scale), projection to a patch's values.

    Source: Open-Sora v1.2.0 opensora/models/layers/blocks.py (T2IFinalLayer).
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, out)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)

    def forward(self, x: Tensor, time: Tensor, t0_embedding: Tensor, x_mask: Tensor | None) -> Tensor:
        """x (b, t, s, d) -> (b, t, s, out); time (b, d), or (b, t, d) where frames differ, and t0_embedding
        (b, d) embed the step and t = 0; x_mask (b, t)."""
        x = self._modulate(x, time)  # with the raw time embedding, not the output of t_block
        if x_mask is not None:
            # The reference norms and modulates given frames a second time, on top of the first: kept, for equality.
            x = torch.where(x_mask[:, :, None, None], x, self._modulate(x, t0_embedding))
        return self.linear(x)

    def _modulate(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + time[..., None, :]).unbind(-2)  # (b, d) or (b, t, d)
        if time.ndim == 2:
            shift, scale = shift[:, None], scale[:, None]
        return modulate(self.norm_final(x), shift[:, :, None], scale[:, :, None])
