"""What the guidance rules do to predictions that no weighted sum of branches can: pure functions of tensors.

In all of them the first axis is the clip, which never touches another one; c is the prompt branch's prediction, u the
null branch's, d = c - u, s the scale. docs/guidance.md compares them with the papers and with diffusers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RESCALE = 0.7  # Lin et al., 2023
APG_MOMENTUM = -0.5  # Sadat et al., 2024, for SDXL
APG_LIMIT = 15 / 256  # likewise: a norm of 15 over SDXL's 4 x 128 x 128 latents, as their RMS
MAMBO_DAMPING = 8.0  # alpha of MAMBO-G, 2025
FDG_LOW = 0.5  # share of the pull on coarse structure (Sadat et al., 2025, have scales of 5 and 10 for SDXL)


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Draw the spread of a guided prediction back to that of its conditional branch: guidance widens it, which burns
    colours. guided (share std(c) / std(guided) + 1 - share), spreads over all but the clips.

    Source: Lin et al., "Common diffusion noise schedules and sample steps are flawed", 2023, eq. 14-16; Open-Sora 1.3
    with share 0.7 (opensora/schedulers/rf/__init__.py, fix_guidance_flaw).
    """
    axes = list(range(1, guided.ndim))
    ratio = conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return guided * (share * ratio + 1 - share)


def cfg_zero(conditional: Tensor, null: Tensor, scale: float) -> Tensor:
    """Guidance from the null branch at its best length: z u + s (c - z u), where z = <c, u> / |u|^2 of each clip.

    Source: Fan et al., "CFG-Zero*: improved classifier-free guidance for flow matching models", 2025, without
    its zero first step, which a run of few steps cannot spare.
    """
    axes = tuple(range(1, null.ndim))
    best = (conditional * null).sum(axes, keepdim=True) / null.square().sum(axes, keepdim=True)
    return best * null + scale * (conditional - best * null)


def limited(pull: Tensor, rms: float) -> Tensor:
    """A pull at most `rms` strong: scaled down where its root mean square over the clip is more.

    Source: Sadat et al., "Eliminating oversaturation and artifacts of high guidance scales in diffusion models" (APG),
    2024, whose r is the norm and thus a number for one size of latents; as an RMS it fits every size.
    """
    axes = tuple(range(1, pull.ndim))
    return pull * (rms / pull.square().mean(axes, keepdim=True).sqrt().clamp(min=1e-12)).clamp(max=1)


def orthogonal_part(pull: Tensor, clean: Tensor) -> Tensor:
    """The part of a pull that is at right angles to the clean estimate; the part along it only raises contrast.

    Source: Sadat et al., 2024 (APG), with eta 0.
    """
    axes = tuple(range(1, clean.ndim))
    along = (pull * clean).sum(axes, keepdim=True) / clean.square().sum(axes, keepdim=True)
    return pull - along * clean


def mambo_g(conditional: Tensor, null: Tensor, scale: float) -> Tensor:
    """Guidance whose pull is damped where the branches are far apart: u + (1 + (s - 1) exp(-alpha |d| / |u|)) d.

    Source: "MAMBO-G: magnitude-aware mitigation for boosted guidance", arXiv 2508.03442, with alpha 8 (of
    diffusers 0.42, guiders/magnitude_aware_guidance.py).
    """
    axes = tuple(range(1, null.ndim))
    apart = conditional - null
    ratio = (apart.square().sum(axes, keepdim=True) / null.square().sum(axes, keepdim=True).clamp(min=1e-12)).sqrt()
    return null + (1 + (scale - 1) * torch.exp(-MAMBO_DAMPING * ratio)) * apart


def tangential(conditional: Tensor, null: Tensor, scale: float) -> Tensor:
    """Guidance from the part u' of the null branch along what both branches share: u' + s (c - u').

    That direction v is the first right singular vector of the two predictions as rows, and u' = <u, v> v; what only the
    null branch says, which is mostly noise, is dropped. Of two rows it needs no decomposition of long vectors: v is the
    rows weighed by the first eigenvector of their 2 x 2 matrix of products.
    Source: Kwon et al., "TCFG: Tangential damping classifier-free guidance", arXiv 2503.18137.
    """
    rows = torch.stack([conditional, null], 1).flatten(2).double()  # (rows, 2, n)
    products = rows @ rows.transpose(1, 2)
    first = torch.linalg.eigh(products).eigenvectors[:, :, -1:]  # of the largest eigenvalue, (rows, 2, 1)
    direction = (first * rows).sum(1)
    length = direction.norm(dim=1, keepdim=True).clamp(min=1e-12)
    direction = direction / length
    shared = ((rows[:, 1] * direction).sum(1, keepdim=True) * direction).view_as(null).to(null.dtype)
    return shared + scale * (conditional - shared)


def coarse(video: Tensor) -> Tensor:
    """What a video (rows, c, t, h, w) keeps at half its height and width, at its own size: each frame blurred with the
    binomial 1 4 6 4 1, halved and enlarged again. The video minus this is the upper level of a Laplacian pyramid (Burt
    & Adelson, 1983)."""
    frames = video.movedim(2, 1).flatten(0, 1)  # (rows t, c, h, w)
    tap = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=video.device, dtype=video.dtype) / 16
    kernel = (tap[:, None] * tap)[None, None].expand(frames.shape[1], 1, 5, 5)
    padded = F.pad(frames, (2, 2, 2, 2), mode="replicate")
    blurred = F.conv2d(padded, kernel, groups=frames.shape[1])
    height, width = frames.shape[-2:]
    half = F.interpolate(blurred, size=(-(-height // 2), -(-width // 2)), mode="area")
    back = F.interpolate(half, size=(height, width), mode="bilinear", align_corners=False)
    return back.unflatten(0, (video.shape[0], video.shape[2])).movedim(1, 2)
