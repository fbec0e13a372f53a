"""STDiT3 of Open-Sora 1.3: windows in time, and given frames that are told to the network."""

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
from opensora_demo.models.stdit3_v13 import Block, STDiT3V13, STDiT3V13Config
from opensora_demo.request.video import VideoShape


class STDiT3V13Adapter(PixArtAdapter[STDiT3V13]):
    config = STDiT3V13Config
    reads_frames = True

    def call(
        self,
        x: Tensor,
        time: Tensor,
        condition: STDiTConditioning,
        rows: list[int],
        branches: list[int],
        x_mask: Tensor | None,
    ) -> Tensor:
        """Given frames are told to the branches of the prompt and of the null prompt, and hidden from the third; the
        mask is told to all of them."""
        text, null = condition.rows(branches)
        cond = cond_mask = None
        if condition.latent is not None and condition.mask is not None:
            seen = torch.tensor([k < 2 for k in branches], device=x.device).view(-1, 1, 1, 1, 1)
            latent = condition.latent[rows] if condition.apart else condition.latent
            cond, cond_mask = latent * seen, condition.mask.expand(len(x), -1, -1, -1, -1)
        return self.network(
            x,
            time,
            text,
            cond=cond,
            cond_mask=cond_mask,
            given=condition.given_frames(),
            null=null,
            x_mask=x_mask,
            **numbers(condition, x),
        )

    def call_without_data(self, x: Tensor, shape: VideoShape, tokens: int) -> Tensor:
        one = torch.ones(len(x), device=x.device)
        return self.network(x, one, self.text_without_data(x, tokens), **made_up(shape, x))

    def layers(self) -> Sequence[tuple[nn.Module, ...]]:
        spatial, temporal = [*self.network.spatial_blocks], [*self.network.temporal_blocks]
        return [*zip(spatial, temporal, strict=True)] if self.network.cfg.temporal else [(block,) for block in spatial]

    def _blocks(self) -> Iterator[tuple[int, Axis, Block]]:
        temporal = self.network.temporal_blocks if self.network.cfg.temporal else ()
        for i, spatial in enumerate(self.network.spatial_blocks):
            assert isinstance(spatial, Block)
            yield i, "space", spatial
            for block in temporal[i : i + 1]:
                assert isinstance(block, Block)
                yield i, "time", block

    def attention_sites(self) -> Iterator[AttentionSite]:
        window = self.network.cfg.window
        for i, axis, block in self._blocks():
            if axis == "space":
                yield SelfAttentionSite(i, "space", block.attn)
            else:
                yield SelfAttentionSite(i, "time" if window is None else "all", block.attn, window)
            yield CrossAttentionSite(i, block.cross_attn)

    def modulation(self, embedded: Sequence[Tensor]) -> Iterator[ModulationVectors]:
        shared = self.shared_modulation(embedded[0])
        for i, axis, block in self._blocks():
            yield ModulationVectors(i, axis, ("attention", "mlp"), shared + block.scale_shift_table)
