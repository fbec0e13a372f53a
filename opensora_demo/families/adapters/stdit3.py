"""STDiT3 of Open-Sora 1.2: blocks over space and over time in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from opensora_demo.families.adapters.base import (
    AttentionSite,
    Axis,
    CrossAttentionSite,
    ModulationVectors,
    SelfAttentionSite,
)
from opensora_demo.families.adapters.cross_attention import PixArtAdapter, made_up, numbers
from opensora_demo.families.stdit import STDiTConditioning
from opensora_demo.models.stdit3 import Block, STDiT3, STDiT3Config
from opensora_demo.request.video import VideoShape


class STDiT3Adapter(PixArtAdapter[STDiT3]):
    config = STDiT3Config

    @property
    def predicts_clean(self) -> bool:
        return self.network.cfg.prediction == "clean"

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
        return self.network(x, time, text, x_mask=x_mask, **numbers(condition, x))

    def call_without_data(self, x: Tensor, shape: VideoShape, tokens: int) -> Tensor:
        one = torch.ones(len(x), device=x.device)
        return self.network(x, one, self.text_without_data(x, tokens), **made_up(shape, x))

    def layers(self) -> Sequence[tuple[nn.Module, ...]]:
        return [*zip(self.network.spatial_blocks, self.network.temporal_blocks, strict=True)]

    def _blocks(self) -> Iterator[tuple[int, Axis, Block]]:
        pairs = zip(self.network.spatial_blocks, self.network.temporal_blocks, strict=True)
        for i, (spatial, temporal) in enumerate(pairs):
            assert isinstance(spatial, Block)
            assert isinstance(temporal, Block)
            yield i, "space", spatial
            yield i, "time", temporal

    def attention_sites(self) -> Iterator[AttentionSite]:
        for i, axis, block in self._blocks():
            if block.attn is not None:
                words = axis == "space" and block.cross_attn is None
                yield SelfAttentionSite(i, "time" if axis == "time" else "space", block.attn, words=words)
            if block.cross_attn is not None:
                yield CrossAttentionSite(i, block.cross_attn)

    def modulation(self, embedded: Sequence[Tensor]) -> Iterator[ModulationVectors]:
        shared = self.shared_modulation(embedded[0])
        for i, axis, block in self._blocks():
            yield ModulationVectors(i, axis, ("attention", "mlp"), shared + block.scale_shift_table)
