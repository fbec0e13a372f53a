"""STDiT of Open-Sora 1.0, and PixArt: no FPS, no sizes, no given frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from opensora_demo.families.adapters.base import (
    AttentionSite,
    CrossAttentionSite,
    ModulationVectors,
    SelfAttentionSite,
    numbered,
)
from opensora_demo.families.adapters.cross_attention import PixArtAdapter
from opensora_demo.families.stdit import STDiTConditioning
from opensora_demo.models.stdit import Block, STDiT, STDiTConfig
from opensora_demo.request.video import VideoShape


class STDiTAdapter(PixArtAdapter[STDiT]):
    config = STDiTConfig
    takes_frames = False

    def call(
        self,
        x: Tensor,
        time: Tensor,
        condition: STDiTConditioning,
        rows: list[int],
        branches: list[int],
        x_mask: Tensor | None,
    ) -> Tensor:
        text, _ = condition.rows(branches)
        return self.network(x, time, text, x_mask=x_mask)

    def call_without_data(self, x: Tensor, shape: VideoShape, tokens: int) -> Tensor:
        return self.network(x, torch.ones(len(x), device=x.device), self.text_without_data(x, tokens))

    def layers(self) -> Sequence[tuple[nn.Module, ...]]:
        return [(block,) for block in self.network.blocks]

    def attention_sites(self) -> Iterator[AttentionSite]:
        """A PixArt draws pictures: all tokens are one frame's."""
        for i, block in numbered(self.network.blocks, Block):
            if self.network.cfg.temporal:
                yield SelfAttentionSite(i, "space", block.attn)
                yield SelfAttentionSite(i, "time", block.attn_temp)
            else:
                yield SelfAttentionSite(i, "all", block.attn)
            yield CrossAttentionSite(i, block.cross_attn)

    def modulation(self, embedded: Sequence[Tensor]) -> Iterator[ModulationVectors]:
        shared = self.shared_modulation(embedded[0])
        for i, block in numbered(self.network.blocks, Block):
            yield ModulationVectors(i, "", ("attention", "mlp"), shared + block.scale_shift_table)
