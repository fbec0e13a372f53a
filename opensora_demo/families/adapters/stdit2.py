"""STDiT2 of Open-Sora 1.1: sizes, length and FPS are told; its temporal attention has modulation of its own."""

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
from opensora_demo.families.adapters.cross_attention import PixArtAdapter, made_up, numbers
from opensora_demo.families.stdit import STDiTConditioning
from opensora_demo.models.stdit2 import Block, STDiT2, STDiT2Config
from opensora_demo.request.video import VideoShape


class STDiT2Adapter(PixArtAdapter[STDiT2]):
    config = STDiT2Config

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
        return self.network(
            x,
            time,
            text,
            frames=torch.full((len(x),), float(condition.frames), device=x.device),
            aspect=condition.height_px / condition.width_px,
            x_mask=x_mask,
            **numbers(condition, x),
        )

    def call_without_data(self, x: Tensor, shape: VideoShape, tokens: int) -> Tensor:
        one = torch.ones(len(x), device=x.device)
        text, aspect = self.text_without_data(x, tokens), shape.height_px / shape.width_px
        return self.network(x, one, text, frames=one, aspect=aspect, **made_up(shape, x))

    def layers(self) -> Sequence[tuple[nn.Module, ...]]:
        return [(block,) for block in self.network.blocks]

    def attention_sites(self) -> Iterator[AttentionSite]:
        for i, block in numbered(self.network.blocks, Block):
            yield SelfAttentionSite(i, "space", block.attn)
            yield SelfAttentionSite(i, "time", block.attn_temp)
            yield CrossAttentionSite(i, block.cross_attn)

    def time_modules(self) -> tuple[nn.Module, tuple[nn.Module, ...]]:
        return self.network.t_embedder, (self.network.t_block, self.network.t_block_temp)

    def modulation(self, embedded: Sequence[Tensor]) -> Iterator[ModulationVectors]:
        shared = self.shared_modulation(embedded[0])
        for i, block in numbered(self.network.blocks, Block):
            yield ModulationVectors(i, "", ("space", "mlp"), shared + block.scale_shift_table)
            in_time = self.network.t_block_temp(embedded[1]).unflatten(-1, (3, -1))
            yield ModulationVectors(i, "", ("time",), in_time + block.scale_shift_table_temporal)
