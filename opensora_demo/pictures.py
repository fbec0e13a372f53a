"""A picture that somebody gives, as a browser shows it: upright, in sRGB, and in memory that its header tells before a
pixel is decoded.

Pillow decodes; large pictures are turned into small RGB ones band by band, and a JPEG is decoded at a fraction of its
size, as its blocks allow. Pictures that take much memory wait for one another.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from opensora_demo.errors import RequestError
from opensora_demo.messages import message

Pixels = NDArray[np.uint8]

MAX_IMAGE_BYTES = 100_000_000
MIN_SIDE_PX = 8
MAX_ELONGATION = 64  # the longer side by the shorter
MAX_PIXELS = 100_000_000
MAX_JPEG_PIXELS = 250_000_000  # phones have 200, and a JPEG is decoded at a fraction of its size
MAX_DECODED_BYTES = 640_000_000
MAX_PROFILE_BYTES = 4_000_000
_LARGE_BYTES = 64_000_000  # of pixels in memory: from here on one picture at a time
_BAND_PIXELS = 1_000_000  # of a picture, turned into RGB at once
_ORIENTATION = 0x0112  # of EXIF
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of file by its first bytes; `bytes_a_pixel` is what decoding takes beside Pillow's own image."""

    plugin: type[ImageFile.ImageFile]
    bytes_a_pixel: float = 0


_JPEG = _Kind(JpegImagePlugin.JpegImageFile)
_PNG = _Kind(PngImagePlugin.PngImageFile)
_GIF = _Kind(GifImagePlugin.GifImageFile)
_WEBP = _Kind(WebPImagePlugin.WebPImageFile, 12)  # measured
_AVIF = _Kind(AvifImagePlugin.AvifImageFile, 8)  # measured
_PROGRESSIVE_BYTES = 6  # a pixel: libjpeg holds all coefficients, of three channels, two bytes each
_AVIF_BRANDS = (b"avif", b"avis", b"mif1", b"msf1")


def _kind(start: bytes) -> _Kind:
    """Of the first 12 bytes of a file. Raises RequestError for a kind that is not read."""
    if start.startswith(b"\xff\xd8\xff"):
        return _JPEG
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return _PNG
    if start.startswith((b"GIF87a", b"GIF89a")):
        return _GIF
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _WEBP
    if start[4:8] == b"ftyp" and start[8:12] in _AVIF_BRANDS:
        return _AVIF
    raise RequestError("reference", message("request.image_unreadable"))


def read_reference(source: str | Path | BinaryIO, height_px: int, width_px: int) -> Pixels:
    """A PNG, JPEG, WebP, AVIF or GIF as the model sees it: (1, h, w, 3) in sRGB, scaled to fill and cropped in the
    middle.

    Told apart by its first bytes; an animation gives its first frame. Raises RequestError("reference") for anything
    that is not such a picture, has more than 100 MB, 250 megapixels (a JPEG) or 100 (others), would take more than
    640 MB, or has a side below 8 px; nothing is decoded before the header has been checked. MemoryError passes.
    """
    try:
        with _opened(source) as (data, size):
            if size > MAX_IMAGE_BYTES:
                raise RequestError("reference", message("request.image_bytes", most_mb=MAX_IMAGE_BYTES // 1_000_000))
            kind = _kind(data.read(12))
            data.seek(0)
            with kind.plugin(data) as image:  # not Image.open, whose limit is one for all kinds
                _check_size(*image.size)
                cost = _cost_bytes(image, kind, height_px, width_px)
                with _ONE_AT_A_TIME if cost > _LARGE_BYTES else nullcontext():
                    picture = resize_to_fill(_upright(image, height_px, width_px), height_px, width_px)
    except (RequestError, MemoryError):
        raise
    except Exception:  # damaged files make Pillow raise nearly anything, struct.error and AttributeError among it
        raise RequestError("reference", message("request.image_unreadable")) from None
    return np.asarray(picture)[None].copy()


@contextmanager
def _opened(source: str | Path | BinaryIO) -> Iterator[tuple[BinaryIO, int]]:
    """The file, and how many bytes it has. Raises RequestError where there is none."""
    if isinstance(source, str | Path):
        if not Path(source).exists():
            raise RequestError("reference", message("request.no_file", file=Path(source).name))
        with Path(source).open("rb") as data:
            yield data, Path(source).stat().st_size
    else:
        size = source.seek(0, io.SEEK_END)
        source.seek(0)
        yield source, size


def _check_size(w: int, h: int) -> None:
    if min(w, h) < MIN_SIDE_PX:
        raise RequestError("reference", message("request.image_side", width=w, height=h, least=MIN_SIDE_PX))
    if max(w, h) > MAX_ELONGATION * min(w, h):
        raise RequestError("reference", message("request.image_narrow", width=w, height=h))


def _cost_bytes(image: ImageFile.ImageFile, kind: _Kind, height_px: int, width_px: int) -> float:
    """What decoding takes; a JPEG is asked for no more of its size than is needed. Raises RequestError where that is
    too much."""
    w, h = image.size
    extra = kind.bytes_a_pixel
    if kind is _JPEG:
        extra = _PROGRESSIVE_BYTES if "progressive" in image.info else 0
        if w * h * 4 > _LARGE_BYTES:
            side = 2 * max(height_px, width_px)  # it may lie on its side
            image.draft(None, (side, side))
    held = {"1": 1, "L": 1, "P": 1, "I;16": 2}.get(image.mode, 4)
    share = image.size[0] * image.size[1] / (w * h)
    most = min(MAX_JPEG_PIXELS if kind is _JPEG else MAX_PIXELS, MAX_DECODED_BYTES / (held * share + extra))
    if w * h > most:
        at_most = int(most / 1e6)
        raise RequestError("reference", message("request.image_pixels", width=w, height=h, most_mp=at_most))
    return w * h * (held * share + extra)


def _upright(image: Image.Image, height_px: int, width_px: int) -> Image.Image:
    """A picture of at least twice the size asked for, or all there is, in sRGB, as its EXIF says it is held."""
    turn = image.getexif().get(_ORIENTATION, 1)
    image.seek(0)
    image.load()
    picture = _in_srgb(_reduced(image, 2 * max(height_px, width_px)), image.info.get("icc_profile"))
    picture.getexif()[_ORIENTATION] = turn
    return ImageOps.exif_transpose(picture)


def _reduced(image: Image.Image, side_px: int) -> Image.Image:
    """Opaque, and of a large picture the mean of squares of pixels: no side becomes shorter than `side_px`."""
    w, h = image.size
    factor = max(min(w, h) // side_px, 1)
    if factor == 1:
        return _opaque(image)
    rows = max(_BAND_PIXELS // (w * factor), 1) * factor
    bands = [_opaque(image.crop((0, top, w, min(top + rows, h)))).reduce(factor) for top in range(0, h, rows)]
    picture = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    top = 0
    for band in bands:
        picture.paste(band, (0, top))
        top += band.height
    return picture


def _opaque(image: Image.Image) -> Image.Image:
    """L, RGB or CMYK: 16-bit scaled rather than clipped, transparency over white."""
    if image.mode.startswith("I"):  # only PNGs have it, and of 16 bits: a dark one stays dark
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer, mode = image.convert("LA" if image.mode == "LA" else "RGBA"), "L" if image.mode == "LA" else "RGB"
        paper = Image.new(mode, layer.size, "white")
        paper.paste(layer.convert(mode), mask=layer.getchannel("A"))
        return paper
    modes = {"L": "L", "1": "L", "CMYK": "CMYK"}
    return image.convert(modes.get(image.mode, "RGB"))


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """L, RGB or CMYK through the colour profile of its file, RGB; as it is where that is broken, or is of other
    channels."""
    if isinstance(profile, bytes) and len(profile) <= MAX_PROFILE_BYTES:
        transform = _transform(profile, image.mode)
        if transform is not None:
            return transform.apply(image)
    return image.convert("RGB")


@lru_cache(maxsize=4)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None for one that cannot be used, as browsers have it."""
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(own.profile.xcolor_space.strip()) != mode:
            return None
        intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        return ImageCms.ImageCmsTransform(
            own, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), mode, "RGB", intent, flags=flags
        )
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None


def resize_to_fill(picture: Image.Image, height_px: int, width_px: int) -> Image.Image:
    """Scaled to cover height x width, bicubic, and cropped in the middle.

    Source: Open-Sora v1.2.0 opensora/datasets/utils.py (resize_crop_to_fill).
    """
    w, h = picture.size
    if height_px / h > width_px / w:
        scaled_h, scaled_w = height_px, round(w * height_px / h)
    else:
        scaled_h, scaled_w = round(h * width_px / w), width_px
    top, left = round((scaled_h - height_px) / 2), round((scaled_w - width_px) / 2)
    scaled = picture.resize((scaled_w, scaled_h), Image.Resampling.BICUBIC)
    return scaled.crop((left, top, left + width_px, top + height_px))
