"""What the networks of the PixArt line have in common: adaLN-single, and text by cross-attention."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from opensora_demo.catalog.spec import ModelSpec
from opensora_demo.families.adapters.base import N
from opensora_demo.families.base import Encoders, lacking
from opensora_demo.families.stdit import CrossAttentionAdapter, STDiTConditioning, STDiTFamily
from opensora_demo.nn.attention import TextKeys
from opensora_demo.request.video import VideoShape


class PixArtAdapter(CrossAttentionAdapter[N]):
    """`network` has `null_text`, `project_text`, `t_embedder` and `t_block`."""

    @property
    def _net(self) -> Any:
        return self.network

    def family(self, spec: ModelSpec, encoders: Encoders) -> STDiTFamily:
        if encoders.text is None:
            raise lacking(spec)
        return STDiTFamily(
            encoders.text,
            self,
            spec.sampler,
            aesthetic_score=spec.aesthetic_score,
            image_fps=spec.image_fps,
            max_batch=spec.max_batch,
            prepare=encoders.prepare,
        )

    def null_text(self, tokens: int) -> Tensor:
        return cast(Tensor, self._net.null_text(tokens))

    def project_text(self, y: Tensor, lengths: Tensor | None = None) -> TextKeys:
        return cast(TextKeys, self._net.project_text(y, lengths))

    def text_without_data(self, x: Tensor, tokens: int) -> TextKeys:
        return self.project_text(torch.empty(len(x), tokens, self.cfg.text_channels, device=x.device))

    def time_modules(self) -> tuple[nn.Module, tuple[nn.Module, ...]]:
        return self._net.t_embedder, (self._net.t_block,)

    def embed_times(self, times: Tensor) -> Tensor:
        return cast(Tensor, self._net.t_embedder(times))

    def shared_modulation(self, embedded: Tensor) -> Tensor:
        """(n, d) -> (n, 6, d): adaLN-single, one for all blocks, to which each adds a table."""
        return cast(Tensor, self._net.t_block(embedded).unflatten(-1, (6, -1)))


def numbers(condition: STDiTConditioning, x: Tensor) -> dict[str, Any]:
    """What every version from 1.1 on is told beside the text, for the batch x."""
    return {
        "fps": torch.full((len(x),), float(condition.fps), device=x.device),
        "height_px": condition.height_px,
        "width_px": condition.width_px,
    }


def made_up(shape: VideoShape, x: Tensor) -> dict[str, Any]:
    """The same without data."""
    one = torch.ones(len(x), device=x.device)
    return {"fps": one, "height_px": shape.height_px, "width_px": shape.width_px}
