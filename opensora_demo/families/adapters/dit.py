"""DiT and Latte of Open-Sora 1.0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from opensora_demo.catalog.spec import ModelSpec
from opensora_demo.families.adapters.base import AttentionSite, ModulationVectors, SelfAttentionSite, numbered
from opensora_demo.families.base import Encoders, lacking
from opensora_demo.families.dit import DiTConditioning, DiTFamily, PooledTextAdapter
from opensora_demo.models.dit import Block, DiT, DiTConfig
from opensora_demo.request.video import VideoShape
from opensora_demo.sampling.config import IddpmConfig


class DiTAdapter(PooledTextAdapter[DiT]):
    config = DiTConfig

    def family(self, spec: ModelSpec, encoders: Encoders) -> DiTFamily:
        if encoders.pooled is None or not isinstance(spec.sampler, IddpmConfig):
            raise lacking(spec)
        return DiTFamily(encoders.pooled, self, spec.sampler, max_batch=spec.max_batch, prepare=encoders.prepare)

    def null_vector(self) -> Tensor:
        return self.network.null_condition()

    def call(
        self,
        x: Tensor,
        time: Tensor,
        condition: DiTConditioning,
        rows: list[int],
        branches: list[int],
        x_mask: Tensor | None,
    ) -> Tensor:
        return self.network(x, time, condition.y[branches].to(x.device))  # classes are found on the CPU

    def call_without_data(self, x: Tensor, shape: VideoShape, tokens: int) -> Tensor:
        y = torch.empty(len(x), self.network.cfg.text_channels, device=x.device)
        if self.network.cfg.classes:
            y = torch.zeros(len(x), dtype=torch.long, device=x.device)
        return self.network(x, torch.ones(len(x), device=x.device), y)

    def layers(self) -> Sequence[tuple[nn.Module, ...]]:
        """A Latte's layer is two blocks, one over space and one over time."""
        blocks = [*self.network.blocks]
        size = 2 if self.network.cfg.alternate else 1
        return [tuple(blocks[at : at + size]) for at in range(0, len(blocks), size)]

    def attention_sites(self) -> Iterator[AttentionSite]:
        """A Latte's layer is two blocks, one over space and one over time."""
        for i, block in numbered(self.network.blocks, Block):
            if self.network.cfg.alternate:
                yield SelfAttentionSite(i // 2, "time" if i % 2 else "space", block.attn)
            else:
                yield SelfAttentionSite(i, "all", block.attn)

    def time_modules(self) -> tuple[nn.Module, tuple[nn.Module, ...]]:
        _, first = next(numbered(self.network.blocks, Block))
        return self.network.t_embedder, (first.adaLN_modulation,)

    def embed_times(self, times: Tensor) -> Tensor:
        return self.network.t_embedder(times)

    def modulation(self, embedded: Sequence[Tensor]) -> Iterator[ModulationVectors]:
        for i, block in numbered(self.network.blocks, Block):
            vectors = block.adaLN_modulation(embedded[0]).unflatten(-1, (6, -1))
            if self.network.cfg.alternate:
                yield ModulationVectors(i // 2, "time" if i % 2 else "space", ("attention", "mlp"), vectors)
            else:
                yield ModulationVectors(i, "", ("attention", "mlp"), vectors)
