"""What masks and scores of attention take where they are written out, and which of them reaches 1000 GB."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MaskCost:
    """One tensor: what it is, its shape, and the bytes of one element."""

    name: str
    shape: tuple[int, ...]
    element_bytes: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.element_bytes


def mask_bytes(
    frames: int,
    height: int,
    width: int,
    text_tokens: int,
    *,
    batch: int = 1,
    heads: int = 16,
    blocks: int = 28,
    score_bytes: int = 2,
) -> tuple[MaskCost, ...]:
    """Masks and scores for a clip of frames x height x width tokens (a token is 16 x 16 px in Open-Sora 1.x) and a text
    of `text_tokens`, from the least that will do to all that may be written out. Masks are boolean, scores have
    `score_bytes` each; the defaults are the published XL/2 in half precision.

    For 32 frames of 512 px (32, 32, 32) and 120 words the mask of the words' keys takes 120 bytes, and expanded to
    every video token 3.9 MB. What comes to 1000 GB is no mask of words: the scores of all video tokens with each
    other take 34 GB in one block, and 962 GB where those of all 28 blocks are kept, as training does.
    """
    video = frames * height * width
    return (
        MaskCost("mask of the text's keys", (batch, 1, 1, text_tokens), 1),
        MaskCost("the same for every video token", (batch, 1, video, text_tokens), 1),
        MaskCost("scores of video and text", (batch, heads, video, text_tokens), score_bytes),
        MaskCost("mask of video and video", (batch, 1, video, video), 1),
        MaskCost("scores of video and video", (batch, heads, video, video), score_bytes),
        MaskCost("the same of all blocks", (blocks, batch, heads, video, video), score_bytes),
    )
