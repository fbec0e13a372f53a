"""Files: a reference image in; an mp4 or a PNG out, the settings inside it."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from opensora_demo.errors import RequestError
from opensora_demo.types import Frames

MAX_PIXELS = 40_000_000
MAX_IMAGE_BYTES = 30_000_000
MIN_SIDE_PX = 8
MIN_FILE_PX = 256  # clips of small models are enlarged by a whole number to at least this
_FORMATS = ("PNG", "JPEG", "WEBP")
_PAPER = (255, 255, 255)  # what shows through a transparent reference


# --- in ------------------------------------------------------------------------------------------------------------


def _as_rgb(image: Image.Image) -> Image.Image:
    """Upright RGB: EXIF orientation applied, 16-bit scaled rather than clipped, transparency over white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (*_PAPER, 255)), layer).convert("RGB")
    return image.convert("RGB")


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


def crop_square(picture: Image.Image, size_px: int) -> Image.Image:
    """The middle square at size x size: halved while it is at least twice as large, then bicubic.

    Source: Open-Sora v1.2.0 opensora/datasets/video_transforms.py, after guided-diffusion (center_crop_arr).
    """
    while min(picture.size) >= 2 * size_px:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = size_px / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (picture.width - size_px) // 2, (picture.height - size_px) // 2
    return picture.crop((left, top, left + size_px, top + size_px))


def read_reference(source: str | Path | BinaryIO, height_px: int, width_px: int) -> Frames:
    """A PNG, JPEG or WebP as the model sees it: (1, h, w, 3), scaled to fill and cropped in the middle.

    An animation gives its first frame. Raises RequestError("reference") for anything that is not such an image, has
    more than 40 megapixels or 30 MB, or a side below 8 px; nothing is decoded before the header has been checked.
    """
    try:
        if isinstance(source, (str, Path)) and os.path.getsize(source) > MAX_IMAGE_BYTES:
            raise RequestError("reference", f"the image file is larger than {MAX_IMAGE_BYTES // 1_000_000} MB")
        with Image.open(source, formats=_FORMATS) as image:
            w, h = image.size
            if w * h > MAX_PIXELS:
                raise RequestError(
                    "reference",
                    f"the image has {w} x {h} pixels; at most {MAX_PIXELS // 1_000_000} megapixels are read",
                )
            if min(w, h) < MIN_SIDE_PX:
                raise RequestError(
                    "reference", f"the image has {w} x {h} pixels; each side must have at least {MIN_SIDE_PX}"
                )
            if max(w, h) > 64 * min(w, h):
                raise RequestError("reference", f"the image has {w} x {h} pixels; it is too narrow to crop")
            image.seek(0)
            picture = resize_to_fill(_as_rgb(image), height_px, width_px)
    except RequestError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RequestError(
            "reference", f"the image is too large; at most {MAX_PIXELS // 1_000_000} megapixels are read"
        ) from None
    except Exception:  # damaged files make Pillow raise nearly anything, struct.error and AttributeError among it
        raise RequestError("reference", "this is not a readable PNG, JPEG or WebP image") from None
    return np.asarray(picture)[None].copy()


# --- out -----------------------------------------------------------------------------------------------------------


def enlarge(frames: Frames, min_px: int = MIN_FILE_PX) -> Frames:
    """Scale by the smallest whole number that brings the shorter side to `min_px`; size 1 is left as it is."""
    factor = math.ceil(min_px / min(frames.shape[1:3]))
    if factor <= 1:
        return frames
    size = (frames.shape[2] * factor, frames.shape[1] * factor)
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in frames])


def _even(frames: Frames) -> Frames:
    h, w = frames.shape[1:3]
    return np.pad(frames, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")


@contextmanager
def _whole(file: Path) -> Iterator[str]:
    """A new file beside `file` to write to; it takes the place of `file` at the end, or goes if the writing failed."""
    handle, part = tempfile.mkstemp(suffix=file.suffix, dir=file.parent)
    os.close(handle)
    try:
        yield part
        os.chmod(part, 0o644)
        os.replace(part, file)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def write_mp4(
    file: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: int,
    settings: Mapping[str, Any],
    *,
    min_px: int = MIN_FILE_PX,
) -> None:
    """Pictures (h, w, 3) as H.264, yuv420p, even sides, index in front; `settings` as JSON in the comment. Appears
    whole or not at all."""
    pictures = (_even(enlarge(picture[None], min_px))[0] for picture in frames)
    first = next(pictures)
    with _whole(file) as part, av.open(part, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = json.dumps(dict(settings), ensure_ascii=False)
        container.metadata["title"] = str(settings.get("prompt", ""))[:200]
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "14", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
        stream.codec_context.color_range = 1
        for picture in itertools.chain([first], pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_png(file: Path, frame: Frames, settings: Mapping[str, Any], *, min_px: int = MIN_FILE_PX) -> None:
    """One picture (h, w, 3) uint8 as PNG, enlarged as `write_mp4` does; `settings` as JSON in an iTXt chunk named
    "comment". Appears whole or not at all."""
    text = PngImagePlugin.PngInfo()
    text.add_itxt("comment", json.dumps(dict(settings), ensure_ascii=False))
    with _whole(file) as part:
        Image.fromarray(enlarge(frame[None], min_px)[0]).save(part, "PNG", pnginfo=text)


# --- and in again --------------------------------------------------------------------------------------------------

MAX_FILE_BYTES = 200_000_000
MAX_TEXT_BYTES = 1_000_000
_MAX_CHUNKS = 100_000
_PNG = b"\x89PNG\r\n\x1a\n"


def read_settings(file: Path) -> dict[str, Any] | None:
    """The settings inside an mp4 by `write_mp4` or a PNG by `write_png`, told apart by their first bytes, or None.

    Refuses files of more than 200 MB and texts of more than 1 MB. No pixels of a PNG are decoded.
    """
    try:
        if not os.path.isfile(file) or os.path.getsize(file) > MAX_FILE_BYTES:
            return None
        with open(file, "rb") as data:
            start = data.read(8)
            text = _png_comment(data) if start == _PNG else _mp4_comment(file) if start[4:] == b"ftyp" else None
        settings = json.loads(text) if text and len(text) <= MAX_TEXT_BYTES else None
    except (OSError, ValueError, RecursionError):  # av's errors are OSErrors or ValueErrors
        return None
    return settings if isinstance(settings, dict) else None


def _mp4_comment(file: Path) -> str | None:
    with av.open(str(file), format="mp4") as container:  # not a guess: a playlist would make it open other files
        return container.metadata.get("comment")


def _png_comment(data: BinaryIO) -> str | None:
    """The first text named "comment" of a PNG that is whole, read from behind its signature.

    Walks over the chunks from length to length, so that nothing but this text comes into memory: Pillow bounds
    compressed texts, but reads a plain one of any size. Compressed texts, which may be bombs, are not ours.
    """
    found: str | None = None
    end = os.fstat(data.fileno()).st_size
    for _ in range(_MAX_CHUNKS):
        header = data.read(8)
        if len(header) < 8:
            return None
        length, kind = struct.unpack(">I4s", header)
        if data.tell() + length + 4 > end:
            return None
        if kind == b"IEND":
            return found
        if kind not in (b"iTXt", b"tEXt") or length > MAX_TEXT_BYTES + 100 or found is not None:
            data.seek(length + 4, os.SEEK_CUR)
            continue
        body, checksum = data.read(length), data.read(4)
        name, _, value = body.partition(b"\0")
        if name.lower() != b"comment" or zlib.crc32(kind + body) != int.from_bytes(checksum):
            continue
        if kind == b"tEXt":
            found = value.decode("latin-1")
        elif value[:1] == b"\0":  # compression flag and method, language, translated name, text
            found = value[2:].split(b"\0", 2)[2].decode() if value.count(b"\0", 2) >= 2 else None
    return None


def jpeg_strip(frames: Frames, height_px: int = 64, quality: int = 80) -> str:
    """Frames side by side as one JPEG data URI: what the browser animates as the live preview."""
    scale = max(1, round(height_px / frames.shape[1]))
    strip = Image.fromarray(np.concatenate(list(frames), axis=1))
    if scale > 1:
        strip = strip.resize((strip.width * scale, strip.height * scale), Image.Resampling.BICUBIC)
    return _data_uri(strip, "JPEG", quality=quality, subsampling=0)


def sheet(pictures: NDArray[np.uint8], *, lossless: bool) -> str:
    """Pictures (rows, t, h, w) in grey or (rows, t, h, w, 3) as one image of t columns: a data URI, PNG or JPEG."""
    rows, t, h, w = pictures.shape[:4]
    image = pictures.swapaxes(1, 2).reshape(rows * h, t * w, *pictures.shape[4:])
    if lossless:
        return _base64("png", stored_png(image))
    return _data_uri(Image.fromarray(image), "JPEG", quality=75, subsampling=0)


def stored_png(image: NDArray[np.uint8]) -> bytes:
    """(h, w) grey or (h, w, 3) RGB as a PNG without compression: for a few hundred pixels it is no larger than with,
    and takes a quarter of the time that Pillow spends on its way to the first byte.

    Source: W3C PNG (third edition), 5.3 chunk layout, 11.2.1 IHDR.
    """
    h, w = image.shape[:2]
    lines = np.zeros((h, 1 + image[0].size), np.uint8)  # each begins with its filter, 0: none
    lines[:, 1:] = image.reshape(h, -1)
    header = b"IHDR" + struct.pack(">IIBBBBB", w, h, 8, 2 if image.ndim == 3 else 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(lines.tobytes(), 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(header) + _chunk(data) + _chunk(b"IEND")


def _chunk(kind_and_data: bytes) -> bytes:
    return struct.pack(">I", len(kind_and_data) - 4) + kind_and_data + struct.pack(">I", zlib.crc32(kind_and_data))


def _data_uri(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return _base64(kind.lower(), buffer.getvalue())


def _base64(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


SPRITE_PX = 320  # the longer side of a frame in a sprite, at most
SPRITE_WIDTH_PX = 4096


def write_sprite(file: Path, frames: Frames, quality: int = 90) -> tuple[int, tuple[int, int]]:
    """All frames as one JPEG, line after line, for a browser that shows any of them at any time.

    Answers how many stand in a line, and their (height, width), at most 320 px on the longer side.
    """
    scale = min(SPRITE_PX / max(frames.shape[1:3]), 1.0)
    h, w = (max(round(scale * side), 1) for side in frames.shape[1:3])
    across = min(len(frames), SPRITE_WIDTH_PX // w)
    sheet = Image.new("RGB", (across * w, math.ceil(len(frames) / across) * h))
    for i, picture in enumerate(frames):
        small = Image.fromarray(picture)
        if scale < 1:
            small = small.resize((w, h), Image.Resampling.LANCZOS)
        sheet.paste(small, (i % across * w, i // across * h))
    with _whole(file) as part:
        sheet.save(part, "JPEG", quality=quality, subsampling=0)
    return across, (h, w)
