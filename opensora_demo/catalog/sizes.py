"""Picture sizes of the published versions: a resolution (how many pixels) and an aspect (width to height).

1.x: opensora/datasets/aspect.py (v1.2.0, v1.3), whose sizes the 2-D VAE cuts to multiples of 8. 2.0:
opensora/datasets/aspect.py, multiples of what a latent patch covers. Upstream's 1.x writes height to width, here it is
always width first, as in 2.0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from opensora_demo.request.limits import Size

_ASPECTS_1X = ("16:9", "9:16", "1:1", "4:3", "3:4", "21:9")
_SIZES_1X: Mapping[str, tuple[tuple[int, int], ...]] = {  # (height, width) for each of _ASPECTS_1X
    "144p": ((144, 256), (256, 144), (192, 192), (166, 221), (221, 165), (125, 291)),
    "240p": ((240, 426), (426, 240), (320, 320), (276, 368), (370, 278), (210, 490)),
    "360p": ((360, 640), (640, 360), (480, 480), (416, 554), (554, 416), (314, 732)),
    "480p": ((480, 854), (854, 480), (640, 640), (554, 738), (740, 555), (420, 980)),
    "720p": ((720, 1280), (1280, 720), (960, 960), (832, 1110), (1108, 832), (628, 1466)),
}
_ASPECTS_20 = ("16:9", "1:1", "4:3", "3:2", "2:1", "2.39:1")  # each but the square upright too
_SIDES_20 = {"256px": 256, "768px": 768}


def square(side_px: int) -> tuple[Size, ...]:
    """The one size of a model that has only one, a square."""
    return (Size(resolution=f"{side_px}px", aspect="1:1", height_px=side_px, width_px=side_px),)


def sizes_1x(first: str, *, multiple: int) -> tuple[Size, ...]:
    """All sizes of 1.1 to 1.3, both sides cut to a multiple; those of the resolution `first` come first."""
    order = (first, *(name for name in _SIZES_1X if name != first))
    return tuple(
        Size(resolution=name, aspect=aspect, height_px=h // multiple * multiple, width_px=w // multiple * multiple)
        for name in order
        for aspect, (h, w) in zip(_ASPECTS_1X, _SIZES_1X[name], strict=True)
    )


def sizes_20(first: str, *, multiple: int) -> tuple[Size, ...]:
    """Sizes of 2.0: of the resolution's number of pixels, both sides cut to a multiple; upright ones are turned."""
    sizes = []
    for name in (first, *(name for name in _SIDES_20 if name != first)):
        pixels = _SIDES_20[name] ** 2
        for aspect in _ASPECTS_20:
            across, down = aspect.split(":")
            width = int(math.sqrt(pixels * float(across) / float(down)) / multiple) * multiple
            height = int(pixels / width / multiple) * multiple
            sizes.append(Size(resolution=name, aspect=aspect, height_px=height, width_px=width))
            if across != down:
                sizes.append(Size(resolution=name, aspect=f"{down}:{across}", height_px=width, width_px=height))
    return tuple(sizes)
