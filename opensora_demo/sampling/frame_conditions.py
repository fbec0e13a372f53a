"""Which latent frames Open-Sora 2.0 is given, and what they hold.

The network sees them as extra channels: a mask that is 1 where a frame is given, and the given latent, zero elsewhere.
Source: Open-Sora v2.0 opensora/utils/inference.py (prepare_inference_condition).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Kind = Literal["t2v", "i2v_head", "i2v_tail", "i2v_loop", "v2v_head", "v2v_tail", "v2v_head_easy", "v2v_tail_easy"]
VIDEO_FRAMES, EASY_VIDEO_FRAMES = 8, 16  # latent frames kept of a given video, one more where the codec is causal


def kind_of(first: Tensor | None, last: Tensor | None) -> Kind:
    """Of the latents (c, n, h, w) that a clip begins and ends with: n is 1 for a picture, more for a video."""
    if first is not None and last is not None:
        return "i2v_loop"
    if first is not None:
        return "i2v_head" if first.shape[1] == 1 else "v2v_head"
    if last is not None:
        return "i2v_tail" if last.shape[1] == 1 else "v2v_tail"
    return "t2v"


def given_frames(
    kind: Kind,
    references: Sequence[Tensor],
    size: tuple[int, int, int, int],
    *,
    causal: bool = True,
    count: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Mask (1, t, h, w) and latent (c, t, h, w) for one clip of latent `size` (c, t, h, w).

    `references` are latents (c, t', h, w): the first frame of the first, the last frame of the last, or the frames of
    a video count, as many as published or `count`. Without references, or for a single image, nothing is given. Raises
    ValueError for an unknown kind or a video that is too short.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"unknown condition {kind!r}; one of {', '.join(get_args(Kind))}")
    c, t, h, w = size
    mask, latent = torch.zeros(1, t, h, w), torch.zeros(c, t, h, w)
    if kind == "t2v" or not references or t == 1:
        return mask, latent
    if kind.startswith("v2v"):
        published = (EASY_VIDEO_FRAMES if kind.endswith("easy") else VIDEO_FRAMES) + int(causal)
        count = min(published if count is None else count, t)
        video = references[0]
        if video.shape[1] < count:
            raise ValueError(f"{kind} needs {count} latent frames, the video has {video.shape[1]}")
        at = slice(0, count) if "head" in kind else slice(-count, None)
        mask[:, at], latent[:, at] = 1, video[:, at].to(latent)
        return mask, latent
    if kind in ("i2v_head", "i2v_loop"):
        mask[:, 0], latent[:, 0] = 1, references[0][:, 0].to(latent)
    if kind in ("i2v_tail", "i2v_loop"):
        mask[:, -1], latent[:, -1] = 1, references[-1][:, -1].to(latent)
    return mask, latent
