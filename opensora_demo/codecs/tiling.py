"""Coding a large clip in overlapping tiles that fade into each other, so that memory does not grow with its size.

Source: Open-Sora v2.0 opensora/models/hunyuan_vae/autoencoder_kl_causal_3d.py, opensora/models/dc_ae/models/dc_ae.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from opensora_demo.nn.peers import Peers, in_turn

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Sizes of a tile before (px, frames) and after coding, and the share of a tile that overlaps the next.

    The two sizes need not be in the codec's proportion: DC-AE's published settings keep latent tiles of another one.
    `spatial` and `temporal` switch each kind on, for clips that are larger than a tile.
    """

    spatial: bool = False
    temporal: bool = False
    tile_px: int = 256
    tile_latent: int = 32
    tile_frames: int = 64
    tile_latent_frames: int = 16
    overlap: float = 0.25


def fade(a: Tensor, b: Tensor, axis: int, extent: int) -> None:
    """Let the end of a run into the beginning of b along an axis, over at most `extent` places; changes b in place."""
    extent = min(a.shape[axis], b.shape[axis], extent)
    if extent == 0:
        return
    share = torch.arange(extent, device=b.device, dtype=b.dtype) / extent
    share = share.view(-1, *[1] * (b.ndim - 1 - axis % b.ndim))
    head = b.narrow(axis, 0, extent)
    head.copy_(a.narrow(axis, a.shape[axis] - extent, extent) * (1 - share) + head * share)


def spatial_tiles(x: Tensor, run: Run, tile: int, out_tile: int, overlap: float, peers: Peers | None = None) -> Tensor:
    """Run over square tiles of (b, c, t, h, w); `tile` and `out_tile` are their sizes before and after."""
    step, extent = int(tile * (1 - overlap)), int(out_tile * overlap)
    limit = out_tile - extent
    tops, lefts = range(0, x.shape[-2], step), range(0, x.shape[-1], step)
    done = in_turn([x[..., top : top + tile, left : left + tile] for top in tops for left in lefts], run, peers, x)
    above: list[Tensor] = []
    rows = []
    for _ in tops:
        row: list[Tensor] = []
        for _ in lefts:
            out = next(done)
            if above:
                fade(above[len(row)], out, -2, extent)
            if row:
                fade(row[-1], out, -1, extent)
            row.append(out)
        rows.append(torch.cat([out[..., :limit, :limit] for out in row], dim=-1))
        above = row
    return torch.cat(rows, dim=-2)


def temporal_tiles(
    x: Tensor, run: Run, tile: int, out_tile: int, overlap: float, *, causal: bool, peers: Peers | None = None
) -> Iterator[Tensor]:
    """Run over tiles in time, yielding finished parts. A causal codec's tiles begin with one more frame, whose result
    is dropped but in the first. Of a tile only the frames that fade into the next are kept while that one is made."""
    step, extent = int(tile * (1 - overlap)), int(out_tile * overlap)
    limit, extra = out_tile - extent, int(causal)
    before: Tensor | None = None
    parts = [x[:, :, start : start + tile + extra] for start in range(0, x.shape[2], step)]
    for out in in_turn(parts, run, peers, x):
        end = limit + extra
        if before is not None:
            out, end = out[:, :, extra:], limit
            fade(before, out, 2, extent)
        before = out[:, :, max(out.shape[2] - extent, 0) :].clone()
        yield out[:, :, :end]
        del out  # before the next tile is made


def code_tiles(
    x: Tensor, run: Run, tiling: Tiling, *, decode: bool, causal: bool, peers: Peers | None = None
) -> Iterator[Tensor]:
    """Run over a clip or its latents (b, c, t, h, w), tiled as `tiling` says; finished parts in order of time. `peers`
    share the tiles of a frame, or where there is only one those of time."""
    t = tiling
    tile, out = (t.tile_latent, t.tile_px) if decode else (t.tile_px, t.tile_latent)
    frames, out_frames = (t.tile_latent_frames, t.tile_frames) if decode else (t.tile_frames, t.tile_latent_frames)

    spatial = t.spatial and max(x.shape[-2:]) > tile

    def coded(part: Tensor) -> Tensor:
        return spatial_tiles(part, run, tile, out, t.overlap, peers) if spatial else run(part)

    if t.temporal and x.shape[2] > frames:
        over_time = None if spatial else peers
        yield from temporal_tiles(x, coded, frames, out_frames, t.overlap, causal=causal, peers=over_time)
    else:
        yield coded(x)


def first_frames(parts: Iterator[Tensor], frames: int) -> Iterator[Tensor]:
    """The first `frames` frames of a clip that comes in parts (b, c, t_i, h, w)."""
    for part in parts:
        count = part.shape[2]
        if frames > 0:
            yield part[:, :, :frames]
        frames -= count
        del part  # before the next one is made
