"""What every codec offers: latents of a clip, the clip of latents, and how the two lie in time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol, final

import torch
from torch import Tensor, nn

from opensora_demo.nn.peers import Peers


class CodecConfig(Protocol):
    """The numbers of one codec, a frozen dataclass."""

    def build(self) -> Codec:
        """The codec with these numbers, its weights not read yet."""
        ...


class Codec(nn.Module, ABC):
    """Video (b, 3, t, h, w) in [-1, 1] <-> latents (b, c, t', h', w') of about zero mean and unit variance.

    The codec owns the latent scale: nothing outside it multiplies or divides. Two conventions exist (`codecs.scaling`).
    DiT's multiplies by a factor 1 / std after encoding and divides before decoding: the 2-D VAE of 1.0 and 1.1, which
    is also the first stage of 1.2 (0.18215), and Hunyuan's of 2.0. The other divides by the std and multiplies before
    decoding: 1.2 and nano by `scale`, of each channel, after taking `shift` off; 1.3 by the std of each channel, after
    the mean; DC-AE by its one scaling factor. Either way what leaves `encode` enters `decode`, so a round trip does not
    depend on the factor.
    """

    peers: Peers | None = None
    """Processes that share the tiles, or the chunks of time."""
    memory_bytes: int | None = None
    """What the device has in all, where decoding depends on it; None asks the device."""

    @property
    @abstractmethod
    def latent_channels(self) -> int: ...

    @property
    def time_factor(self) -> int:
        """Frames that one latent frame stands for."""
        return 1

    @property
    def copies(self) -> int:
        """How many frames beside itself a lone frame's latent stands for within a clip: none where coding is causal."""
        return 0

    @property
    def causal(self) -> bool:
        """Whether its convolutions look back only (group norms may still pool over time)."""
        return self.copies == 0

    @abstractmethod
    def latent_size(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        """(t', h', w') of a clip's latents."""

    @final
    def get_latent_size(self, input_size: Sequence[int | None]) -> list[int | None]:
        """`latent_size` of (frames, height_px, width_px) where some of them are None, not known yet: they stay None."""
        known = [n if n is not None else 1 for n in input_size]
        sizes = self.latent_size(known[0], known[1], known[2])
        return [None if n is None else size for n, size in zip(input_size, sizes, strict=True)]

    @abstractmethod
    def encode(self, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw from the posterior with a generator, its mean without."""

    @abstractmethod
    def decode_chunks(self, latents: Tensor, frames: int) -> Iterator[Tensor]:
        """The clip's `frames` frames in order, in parts (b, 3, t_i, h, w)."""

    @final
    def decode(self, latents: Tensor, frames: int) -> Tensor:
        """All frames (b, 3, t, h, w) at once."""
        return torch.cat(list(self.decode_chunks(latents, frames)), dim=2)

    def chunks(self, frames: int) -> tuple[int, int]:
        """How many frames are coded together, and after how many the next such chunk begins (fewer where chunks
        overlap)."""
        return frames, frames

    @final
    def frame_spans(self, frames: int, height_px: int, width_px: int) -> tuple[tuple[int, int], ...]:
        """Frames [first, end) of each latent frame. What a codec pads, or gives the first frame alone, is in front, so
        the groups are full at the end."""
        chunk, stride = self.chunks(frames)
        last = frames - (chunk - stride)  # with an overlap, the shared frame begins no chunk of its own
        spans = []
        for start in range(0, last, stride):
            count = min(chunk, frames - start)
            latents = self.latent_size(count, height_px, width_px)[0]
            ends = [start + count - (latents - j - 1) * self.time_factor for j in range(latents)]
            spans += [(max(end - self.time_factor, start), end) for end in ends]
        return tuple(spans)

    def stages(self, video: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Names and latents of what `encode` computes on the way, of codecs that work in stages."""
        return iter(())

    @staticmethod
    def published_name(name: str) -> str | None:
        """A name in published files -> ours; None for what is not needed."""
        return name

    def prepare_for_cpu(self) -> None:
        """Lay the weights out as a CPU reads them fastest. This copies them, and pays for small codecs only."""
