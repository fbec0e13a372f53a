"""Files: a reference image in; an mp4 or a PNG out, the settings inside it; several clips as one table."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import struct
import tempfile
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin

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


def write_mp4(file: Path, frames: Frames, fps: int, settings: Mapping[str, Any], *, min_px: int = MIN_FILE_PX) -> None:
    """H.264, yuv420p, even sides, index in front; `settings` as JSON in the comment. Appears whole or not at all."""
    frames = _even(enlarge(frames, min_px))
    with _whole(file) as part, av.open(part, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = json.dumps(dict(settings), ensure_ascii=False)
        container.metadata["title"] = str(settings.get("prompt", ""))[:200]
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "14", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.color_range = 1
        for picture in frames:
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
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


# --- a table of clips ----------------------------------------------------------------------------------------------

MAX_ROWS, MAX_COLUMNS = 4, 6
MAX_GRID_PX = 1920  # wide; only clips that are large themselves make a wider one
_BAR_PX, _GAP_PX = 28, 6  # the page draws its preview with the same: assets/ui/stage.js
_SIDE_PX = 150  # row labels, at most
_LINE_PX = 20
_INK, _GROUND = (236, 238, 242), (18, 20, 26)
_MAX_LABEL = 300  # characters; more are never shown
# Fonts with Chinese, Japanese and Korean glyphs by file name and face, as Linux, macOS and Windows have them.
_CJK_FONTS = (
    ("NotoSansCJK-Regular.ttc", 2),
    ("NotoSansCJKsc-Regular.otf", 0),
    ("NotoSansSC-Regular.ttf", 0),
    ("SourceHanSansSC-Regular.otf", 0),
    ("wqy-microhei.ttc", 0),
    ("wqy-zenhei.ttc", 0),
    ("DroidSansFallbackFull.ttf", 0),
    ("PingFang.ttc", 0),
    ("Hiragino Sans GB.ttc", 0),
    ("msyh.ttc", 0),
    ("simhei.ttf", 0),
)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_WIDE = "\u2e80-\uffef"  # scripts that the font inside Pillow has no glyphs of


def cell_px(
    height_px: int, width_px: int, columns: int, side_px: int = 0, min_px: int = MIN_FILE_PX
) -> tuple[int, int]:
    """Height and width of a clip in a table of `columns`: enlarged by the whole number that brings its shorter side to
    `min_px`, or a smaller one where the table would become wider than 1920 px."""
    room = (MAX_GRID_PX - side_px - _GAP_PX) // columns - _GAP_PX
    factor = max(1, min(math.ceil(min_px / min(height_px, width_px)), room // width_px))
    return factor * height_px, factor * width_px


@lru_cache(maxsize=1)
def _cjk_font() -> _Font | None:
    for name, face in _CJK_FONTS:
        try:
            return ImageFont.truetype(name, 16, face)
        except OSError:  # not installed
            continue
    return None


def _legible(text: str) -> tuple[str, _Font]:
    """One line without control characters, and a font that has its letters; letters of none become "?"."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:_MAX_LABEL]).split())
    if not re.search(f"[{_WIDE}]", line):
        return line, ImageFont.load_default(16)
    if (font := _cjk_font()) is not None:
        return line, font
    return re.sub(f"[{_WIDE}]", "?", unicodedata.normalize("NFKC", line)), ImageFont.load_default(16)


def _shortened(text: str, font: _Font, width_px: int) -> str:
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text.rstrip() + "…"


def _label(text: str, height_px: int, width_px: int) -> Frames:
    """Text in as many lines as fit, centred from top to bottom, with an ellipsis where it is cut. (h, w, 3)."""
    line, font = _legible(text)
    lines, most = [""], max(1, height_px // _LINE_PX)
    for word in re.findall(rf"[{_WIDE}]|[^\s{_WIDE}]+|\s+", line):
        if len(lines) < most and lines[-1] and font.getlength(lines[-1] + word) > width_px:
            lines.append(word.lstrip())
        else:
            lines[-1] += word
    picture = Image.new("RGB", (width_px, height_px), _GROUND)
    pen = ImageDraw.Draw(picture)
    top = (height_px - _LINE_PX * len(lines)) // 2
    for i, words in enumerate(lines):
        pen.text((0, top + i * _LINE_PX), _shortened(words.rstrip(), font, width_px), fill=_INK, font=font)
    return np.asarray(picture)


def compose_grid(
    rows: Sequence[Sequence[Frames]],
    columns: Sequence[str],
    row_labels: Sequence[str],
    fps: Sequence[int],
    *,
    min_px: int = MIN_FILE_PX,
) -> tuple[Frames, int]:
    """Clips (t, h, w, 3) in one table under its column labels, beside row labels if there are several rows: (frames,
    frames per second).

    Every row plays at its own rate of `fps`, in one common time at the highest; a shorter clip holds its last frame.
    All cells are of one size; a clip is enlarged by the largest whole number that fits, and centred. Raises ValueError
    for more than 4 rows or 6 columns, and for rows that do not have a clip for each column, a label and a rate.
    """
    if not (0 < len(rows) <= MAX_ROWS and 0 < len(columns) <= MAX_COLUMNS):
        raise ValueError(f"a grid has 1 to {MAX_ROWS} rows and 1 to {MAX_COLUMNS} columns")
    if not (len(rows) == len(row_labels) == len(fps)) or any(len(row) != len(columns) for row in rows):
        raise ValueError("every row of a grid has a label, a frame rate, and a clip for each column")
    texts = [_legible(label) for label in row_labels]
    beside = min(_SIDE_PX, max(1, *(math.ceil(font.getlength(text)) for text, font in texts)))
    side = beside + 2 * _GAP_PX if len(rows) > 1 else 0
    sizes = [cell_px(clip.shape[1], clip.shape[2], len(columns), side, min_px) for row in rows for clip in row]
    h, w = max(size[0] for size in sizes), max(size[1] for size in sizes)
    rate = max(fps)
    length = max(math.ceil(len(clip) * rate / own) for row, own in zip(rows, fps, strict=True) for clip in row)
    height, width = _BAR_PX + len(rows) * (h + _GAP_PX) + _GAP_PX, side + len(columns) * (w + _GAP_PX) + _GAP_PX
    grid = np.empty((length, height, width, 3), np.uint8)
    grid[:] = _GROUND
    for j, label in enumerate(columns):
        x = side + _GAP_PX + j * (w + _GAP_PX)
        grid[:, _GAP_PX : _GAP_PX + _BAR_PX, x + 4 : x + w] = _label(label, _BAR_PX, w - 4)
    for i, (row, label, own) in enumerate(zip(rows, row_labels, fps, strict=True)):
        top = _GAP_PX + _BAR_PX + i * (h + _GAP_PX)
        if side:
            grid[:, top : top + h, 2 * _GAP_PX : side] = _label(label, h, beside)
        for j, clip in enumerate(row):
            factor = min(h // clip.shape[1], w // clip.shape[2])
            large = enlarge(clip, factor * min(clip.shape[1:3]))
            y = top + (h - large.shape[1]) // 2
            x = side + _GAP_PX + j * (w + _GAP_PX) + (w - large.shape[2]) // 2
            shown = np.minimum(np.arange(length) * own // rate, len(clip) - 1)
            grid[:, y : y + large.shape[1], x : x + large.shape[2]] = large[shown]
    return grid, rate
