"""What the pipeline asks of a codec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class Codec(Protocol):
    """Video (b, 3, t, h, w) in [-1, 1] <-> latents (b, c, t', h', w') of about zero mean and unit variance.

    The codec owns the latent scale: nothing outside it multiplies or divides. Two conventions exist. DiT's, which 1.x
    and Hunyuan follow, multiplies by a factor 1 / std after encoding and divides before decoding (0.18215). DC-AE
    calls the std itself the scaling factor: it divides after encoding and multiplies before decoding. Either way what
    leaves `encode` enters `decode`, so a round trip does not depend on the factor.
    """

    @property
    def latent_channels(self) -> int: ...

    @property
    def copies(self) -> int:
        """How many frames beside itself a lone frame's latent stands for within a clip: none where coding is causal."""
        ...

    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        """(t', h', w') of a clip's latents."""
        ...

    def encode(self, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw from the posterior with a generator, its mean without."""
        ...

    def decode_chunks(self, latents: Tensor, frames: int) -> Iterator[Tensor]:
        """The clip's `frames` frames in order, in parts (b, 3, t_i, h, w)."""
        ...
