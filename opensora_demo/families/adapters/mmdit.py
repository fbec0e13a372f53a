"""MMDiT of Open-Sora 2.0, and distilled Flux."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_demo.catalog.spec import ModelSpec
from opensora_demo.families.adapters.base import AttentionSite, JointAttentionSite, ModulationVectors
from opensora_demo.families.base import Encoders, lacking
from opensora_demo.families.mmdit import JointTextAdapter, MMDiTConditioning, MMDiTFamily
from opensora_demo.models.mmdit import TIME_FACTOR, DoubleBlock, MMDiT, MMDiTConfig, SingleBlock
from opensora_demo.nn.embeddings import sinusoid
from opensora_demo.nn.rope import rotate_halves, rotate_pairs
from opensora_demo.request.video import VideoShape
from opensora_demo.sampling.config import RectifiedFlowConfig


class MMDiTAdapter(JointTextAdapter[MMDiT]):
    config = MMDiTConfig
    streamable = True

    def family(self, spec: ModelSpec, encoders: Encoders) -> MMDiTFamily:
        if encoders.text is None or encoders.pooled is None or not isinstance(spec.sampler, RectifiedFlowConfig):
            raise lacking(spec)
        return MMDiTFamily(
            encoders.text, encoders.pooled, self, spec.sampler, max_batch=spec.max_batch, prepare=encoders.prepare
        )

    @property
    def patch(self) -> tuple[int, int, int]:
        side = self.network.cfg.patch
        return 1, side, side

    @property
    def latent_channels(self) -> int:
        return self.network.cfg.latent_channels

    @property
    def distilled(self) -> bool:
        return self.network.cfg.guidance_embed

    def call(
        self,
        x: Tensor,
        time: Tensor,
        condition: MMDiTConditioning,
        rows: list[int],
        branches: list[int],
        x_mask: Tensor | None,
    ) -> Tensor:
        return self.network(
            x,
            time,
            condition.text[branches],
            condition.pooled[branches],
            cond=condition.cond(branches) if self.network.cfg.cond_embed else None,
            guidance=torch.tensor([condition.scales[row] for row in rows], device=x.device) if self.distilled else None,
        )

    def call_without_data(self, x: Tensor, shape: VideoShape, tokens: int) -> Tensor:
        cfg, count = self.network.cfg, len(x)
        one = torch.ones(count, device=x.device)
        return self.network(
            x,
            one,
            torch.empty(count, tokens, cfg.text_channels, device=x.device),
            torch.empty(count, cfg.pooled_channels, device=x.device),
            cond=torch.empty(count, 1 + x.shape[1], *x.shape[2:], device=x.device) if cfg.cond_embed else None,
            guidance=one if self.distilled else None,
        )

    def layers(self) -> Sequence[tuple[nn.Module, ...]]:
        return [(block,) for _, block in self._blocks()]

    def unchanged(self, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return args[:2] if isinstance(block, DoubleBlock) else args[0]

    def _blocks(self) -> Iterator[tuple[int, DoubleBlock | SingleBlock]]:
        for i, block in enumerate([*self.network.double_blocks, *self.network.single_blocks]):
            assert isinstance(block, DoubleBlock | SingleBlock)
            yield i, block

    def attention_sites(self) -> Iterator[AttentionSite]:
        for i, block in self._blocks():
            both = [block.txt_attn.norm, block.img_attn.norm] if isinstance(block, DoubleBlock) else [block.norm]
            norms = tuple((norm.query_norm, norm.key_norm) for norm in both)
            yield JointAttentionSite(i, block, norms, rotate_halves if block.halves else rotate_pairs)

    def time_modules(self) -> tuple[nn.Module, tuple[nn.Module, ...]]:
        _, first = next(self._blocks())
        return self.network.time_in, (first.img_mod if isinstance(first, DoubleBlock) else first.modulation,)

    def embed_times(self, times: Tensor) -> Tensor:
        return self.network.time_in(sinusoid(TIME_FACTOR * times).to(self.network.img_in.weight.dtype))

    def modulation(self, embedded: Sequence[Tensor]) -> Iterator[ModulationVectors]:
        for i, block in self._blocks():
            if isinstance(block, DoubleBlock):
                vectors = block.img_mod.lin(F.silu(embedded[0])).unflatten(-1, (6, -1))
                yield ModulationVectors(i, "", ("attention", "mlp"), vectors)
            else:
                vectors = block.modulation.lin(F.silu(embedded[0])).unflatten(-1, (3, -1))
                yield ModulationVectors(i, "", ("attention and mlp",), vectors)
