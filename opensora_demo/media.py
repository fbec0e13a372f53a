"""Files: a video in; an mp4, a GIF, a WebP or a PNG out, the settings inside it.

imageio reads the videos that people give, of PyAV's formats and of Pillow's by one interface, and writes the animations
that go into documents. PyAV itself writes the mp4s, since imageio cannot put text into one, its index in front, or set
the quality, and reads the few bytes of that text back without a frame; Pillow reads and writes single pictures.
"""

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
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Literal

import av
import imageio.v3 as iio
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from opensora_demo.errors import RequestError
from opensora_demo.messages import Message, Param, message
from opensora_demo.pictures import MIN_SIDE_PX, resize_to_fill
from opensora_demo.request.video import Frames

MAX_VIDEO_BYTES = 100_000_000
MAX_VIDEO_PIXELS = 9_000_000  # of a frame: 4096 x 2160 and a little
MAX_VIDEO_FRAMES = 300  # at the clip's rate
MAX_SOURCE_FRAMES = 20_000  # in the file
MAX_TRACKS = 32  # in the file: FFmpeg opens a decoder for each to find out what it is
MIN_FILE_PX = 256  # clips of small models are enlarged by a whole number to at least this


# --- in ------------------------------------------------------------------------------------------------------------

NO_DURATION_MS = 100.0  # what browsers take for none
_ROUNDED_MS = 5.0  # a GIF counts time in hundredths of a second
_UNSPECIFIED = 2  # of H.273
HD_LINES = 720
_DEMUXERS = {"mp4": "mp4", "webm": "matroska"}
_BOUNDS = {"max_streams": str(MAX_TRACKS)}  # FFmpeg's own is 1000


def read_video(file: Path, height_px: int, width_px: int, fps: float) -> Frames:
    """An mp4, MOV, WebM, GIF or WebP as the model sees it: (t, h, w, 3) at `fps` frames per second, upright, every
    frame scaled to fill and cropped in the middle.

    Told apart by its first bytes. Frames come from the times at which they are shown, so that a rate may vary; a GIF's
    or WebP's that is the clip's but for rounding to hundredths of a second is taken frame by frame. Raises
    RequestError("video") for anything else, for more than 100 MB, 9 megapixels, 20 000 frames in the file or 300 at
    `fps`, and for a side below 8 px. Frames are decoded one at a time, once the size in the header has been checked.
    """
    try:
        if not file.exists():
            raise RequestError("video", message("request.no_file", file=file.name))
        if not file.is_file():
            raise RequestError("video", message("request.video_unreadable"))
        if file.stat().st_size > MAX_VIDEO_BYTES:
            raise RequestError("video", message("request.video_bytes", most_mb=MAX_VIDEO_BYTES // 1_000_000))
        with file.open("rb") as data:  # not its name: imageio takes names for addresses and archives too
            kind = _video_kind(data)
            shown = _animation(data, fps) if kind == "animation" else _film(data, kind, fps)
            frames: list[NDArray[np.uint8]] = []
            for picture in shown:
                if len(frames) == MAX_VIDEO_FRAMES:
                    raise RequestError("video", _too_long(fps))
                frames.append(np.asarray(resize_to_fill(picture, height_px, width_px)))
    except (RequestError, MemoryError):
        raise
    except Exception:  # damaged files make the libraries raise nearly anything
        raise RequestError("video", message("request.video_unreadable")) from None
    if not frames:
        raise RequestError("video", message("request.video_unreadable"))
    return np.stack(frames)


def _too_long(fps: float) -> Message:
    seconds = math.floor(MAX_VIDEO_FRAMES / fps)
    return message("request.video_long", most=MAX_VIDEO_FRAMES, fps=fps, seconds=seconds)


def _video_kind(data: BinaryIO) -> Literal["mp4", "webm", "animation"]:
    """By the first bytes. Raises RequestError for anything else."""
    start = data.read(12)
    data.seek(0)
    if start[4:8] == b"ftyp":
        return "mp4"
    if start[:4] == b"\x1aE\xdf\xa3":  # EBML
        return "webm"
    if start[:4] == b"GIF8" or (start[:4] == b"RIFF" and start[8:] == b"WEBP"):
        return "animation"
    raise RequestError("video", message("request.video_kind"))


def _check_size(width: int, height: int, count: int) -> None:
    """Raises RequestError where a frame, or the number of frames in the file, is out of bounds."""
    if width * height > MAX_VIDEO_PIXELS:
        most = MAX_VIDEO_PIXELS // 1_000_000
        raise RequestError("video", message("request.video_pixels", width=width, height=height, most_mp=most))
    if min(width, height) < MIN_SIDE_PX:
        raise RequestError("video", message("request.video_side", width=width, height=height, least=MIN_SIDE_PX))
    if max(width, height) > 64 * min(width, height):
        raise RequestError("video", message("request.video_narrow", width=width, height=height))
    if count > MAX_SOURCE_FRAMES:
        raise RequestError("video", message("request.video_frames_in_file", most=MAX_SOURCE_FRAMES, got=count))


def _opened(data: BinaryIO, kind: Literal["mp4", "webm"]) -> InputContainer:
    """Raises RequestError for more tracks than are read. Its kind is no guess: a playlist would open other files."""
    try:
        return av.open(data, format=_DEMUXERS[kind], options=_BOUNDS)
    except av.error.MemoryError:  # what FFmpeg says of a track beyond its bound
        raise RequestError("video", message("request.video_tracks", most=MAX_TRACKS)) from None


def _film(data: BinaryIO, kind: Literal["mp4", "webm"], fps: float) -> Iterator[Image.Image]:
    """Frames of an mp4 or WebM at `fps`, resampled in time by FFmpeg (filters trim and fps), turned upright. A file
    that does not say its matrix has the one that browsers take: BT.709's from 720 lines on, else BT.601's."""
    with _opened(data, kind) as container:
        unsaid = container.streams.video[0].codec_context.colorspace == _UNSPECIFIED
    data.seek(0)
    how: dict[str, Any] = {"plugin": "pyav", "format": _DEMUXERS[kind], "options": _BOUNDS}
    with iio.imopen(data, "r", **how) as film:
        count, height, width, _ = film.properties().shape
        _check_size(width, height, count)
        turns = _quarter_turns(film.metadata(index=0).get("DISPLAYMATRIX"))
    data.seek(0)
    seconds = (MAX_VIDEO_FRAMES + 1) / fps
    filters = [("trim", f"end={seconds}:end_frame={MAX_SOURCE_FRAMES}"), ("fps", f"fps={fps}")]
    if unsaid and height >= HD_LINES:
        filters.append(("setparams", "colorspace=bt709"))
    filters.append(("format", "rgb24"))  # by one scaler: imageio makes one for each frame that comes otherwise
    with iio.imopen(data, "r", **how) as film:
        for frame in film.iter(format="rgb24", filter_sequence=filters):
            yield Image.fromarray(np.ascontiguousarray(np.rot90(frame, turns)))


def _quarter_turns(matrix: bytes | None) -> int:
    """Counterclockwise quarter turns that bring frames upright, of the display matrix that phones write: nine int32,
    the first two its x axis. Source: ISO/IEC 14496-12, 8.3.2 (tkhd)."""
    if matrix is None or len(matrix) < 8:
        return 0
    a, b = struct.unpack("<2i", matrix[:8])
    return round(math.degrees(math.atan2(-b, a)) / 90) % 4


def _animation(data: BinaryIO, fps: float) -> Iterator[Image.Image]:
    """Frames of a GIF or WebP at `fps`: at each time the one that is shown then, over white."""
    film: Any  # typed for every plugin's arguments in common
    with iio.imopen(data, "r", plugin="pillow") as film:
        width, height = film.metadata(index=0)["shape"]
        _check_size(width, height, 0)
        count = film.properties(index=...).n_images
        _check_size(width, height, count)
        period_ms, end_ms, made = 1000 / fps, 0.0, 0
        for index in range(count):
            layer = Image.fromarray(film.read(index=index, mode="RGBA"))
            picture = Image.new("RGB", layer.size, "white")
            picture.paste(layer, mask=layer.getchannel("A"))
            shown_ms = float(film.metadata(index=index).get("duration") or NO_DURATION_MS)  # known once it is read
            end_ms += period_ms if abs(shown_ms - period_ms) <= _ROUNDED_MS else shown_ms
            while made * period_ms < end_ms - 1e-6:
                made += 1
                yield picture


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


_ACCURATE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
_MACROBLOCK = 16  # px
_SMPTE170M = 6  # of H.273; the same matrix as ITU601, whose number other players do not know
_COLOURS: dict[str, Any] = {
    "dst_colorspace": Colorspace.ITU601,
    "dst_color_range": ColorRange.MPEG,
    "dst_color_primaries": ColorPrimaries.BT709,
    "dst_color_trc": ColorTrc.IEC61966_2_1,
}


@contextmanager
def _whole(file: Path) -> Iterator[str]:
    """A new file beside `file` to write to; it takes the place of `file` at the end, or goes if the writing failed."""
    handle, part = tempfile.mkstemp(suffix=file.suffix, dir=file.parent)
    os.close(handle)
    try:
        yield part
        Path(part).chmod(0o644)
        Path(part).replace(file)
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
    """Pictures (h, w, 3) in sRGB as H.264, yuv420p, even sides, index in front; `settings` as JSON in the comment.
    Appears whole or not at all.

    The file says how its colours are to be read, since players guess otherwise, and by the height: BT.601's matrix
    (which Chromium without a GPU computes four times as exactly as BT.709's), BT.709's primaries, which are sRGB's, and
    sRGB's transfer, limited range. Source: ITU-T H.273, tables 2 to 4.
    """
    pictures = (_even(enlarge(picture[None], min_px))[0] for picture in frames)
    first = next(pictures)
    with _mp4(file, settings) as container:
        stream, scaler = _h264(container, first.shape[:2], fps), VideoReformatter()
        for picture in itertools.chain([first], pictures):
            container.mux(_encoded(stream, scaler, picture))
        container.mux(stream.encode(None))


class Mp4:
    """The same file, encoded while its pictures come. What is encoded stays in memory, compressed, until the settings
    are known and `write` puts all of it into a file; `close` lets go of the encoder."""

    def __init__(self, fps: int, *, min_px: int = MIN_FILE_PX) -> None:
        self.fps, self.min_px = fps, min_px
        self.count = 0  # pictures so far
        self._size = (0, 0)
        self._packets: list[Packet[VideoStream]] = []
        self._encoder: OutputContainer | None = None  # writes nothing: an encoder belongs to a file
        self._stream: VideoStream | None = None
        self._scaler = VideoReformatter()

    def add(self, frames: Frames) -> None:
        """Pictures (t, h, w, 3) uint8 that follow, all of one size."""
        for frame in frames:
            picture = _even(enlarge(frame[None], self.min_px))[0]
            if self._stream is None:
                self._size = picture.shape[:2]
                self._encoder = av.open(os.devnull, "w", format="mp4")
                self._stream = _h264(self._encoder, self._size, self.fps)
            self._packets += _encoded(self._stream, self._scaler, picture)
            self.count += 1

    def write(self, file: Path, settings: Mapping[str, Any]) -> None:
        """All pictures as `write_mp4` would have written them, byte for byte; none may follow. Where it fails, of a
        full disk, it may be tried again. Raises ValueError where there is no picture."""
        if self._stream is None:
            raise ValueError("an mp4 needs a picture")
        if self._encoder is not None:
            self._packets += self._stream.encode(None)
            self.close()
        with _mp4(file, settings) as container:
            stream = _h264(container, self._size, self.fps)
            for packet in self._packets:
                packet.stream = stream
            container.mux(self._packets)

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None


@contextmanager
def _mp4(file: Path, settings: Mapping[str, Any]) -> Iterator[OutputContainer]:
    with _whole(file) as part, av.open(part, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = _marked(settings)
        container.metadata["title"] = str(settings.get("prompt", ""))[:200]
        yield container


def _h264(container: OutputContainer, size: tuple[int, int], fps: int) -> VideoStream:
    """A stream of pictures of `size` (height, width)."""
    options = {"crf": "14", "preset": "veryfast"}
    if any(side % _MACROBLOCK for side in size):
        # x264's macroblock tree would read beyond the picture, and no file be like another. Without it 17 is as good.
        options |= {"crf": "17", "x264-params": "mbtree=0"}
    stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
    stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
    coded = stream.codec_context
    coded.colorspace, coded.color_range = _SMPTE170M, ColorRange.MPEG
    coded.color_primaries, coded.color_trc = ColorPrimaries.BT709, ColorTrc.IEC61966_2_1
    return stream


def _encoded(stream: VideoStream, scaler: VideoReformatter, picture: NDArray[np.uint8]) -> list[Packet[VideoStream]]:
    """`scaler` is the stream's own: making one, with a thread for each core, takes longer than all it is made for."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return stream.encode(scaler.reformat(frame, format="yuv420p", interpolation=_ACCURATE, threads=1, **_COLOURS))


def write_png(file: Path, frame: Frames, settings: Mapping[str, Any], *, min_px: int = MIN_FILE_PX) -> None:
    """One picture (h, w, 3) uint8 as PNG, enlarged as `write_mp4` does; `settings` as JSON in an iTXt chunk named
    "comment". Appears whole or not at all."""
    text = PngImagePlugin.PngInfo()
    text.add_itxt("comment", _marked(settings))
    with _whole(file) as part:
        Image.fromarray(enlarge(frame[None], min_px)[0]).save(part, "PNG", pnginfo=text)


def lossless(frames: Frames, fps: int) -> bytes:
    """Frames (t, h, w, 3) as they are: a PNG of a single one, else a WebP of as many pictures (in milliseconds)."""
    first, *others = map(Image.fromarray, frames)
    data = io.BytesIO()
    if others:
        options: dict[str, Any] = {"duration": round(1000 / fps), "loop": 0, "method": 0, "minimize_size": False}
        first.save(data, "WEBP", save_all=True, append_images=others, lossless=True, **options)
    else:
        first.save(data, "PNG")
    return data.getvalue()


def write_poster(file: Path, frame: Frames, side_px: int, quality: int = 80) -> None:
    """One picture (h, w, 3) uint8 as a WebP of a few kilobytes, its shorter side `side_px` long."""
    picture = Image.fromarray(frame)
    scale = side_px / min(picture.size)
    size = (round(scale * picture.width), round(scale * picture.height))
    with _whole(file) as part:
        picture.resize(size, Image.Resampling.BICUBIC).save(part, "WEBP", quality=quality, method=6)


def write_card(file: Path, frames: Sequence[Frames], size_px: tuple[int, int], *, across: int) -> None:
    """Pictures (h, w, 3) uint8 in a JPEG of `size_px` (width, height) that they fill, `across` in a line; each loses at
    two sides what does not fit."""
    lines = -(-len(frames) // across)
    cell = (size_px[0] // across, size_px[1] // lines)
    card = Image.new("RGB", size_px)
    for i, frame in enumerate(frames):
        picture = ImageOps.fit(Image.fromarray(frame), cell, Image.Resampling.BICUBIC)
        card.paste(picture, (i % across * cell[0], i // across * cell[1]))
    with _whole(file) as part:
        card.save(part, "JPEG", quality=85)


ANIMATION_PX = 960  # the longer side of an animation, at most: a table would take long and become large


def write_animation(file: Path, frames: Frames, fps: int, settings: Mapping[str, Any]) -> None:
    """Frames (t, h, w, 3) as an endless GIF or WebP, by the name of the file; `settings` as JSON inside, GIF's comment
    or WebP's XMP. GIF counts time in hundredths of a second. Appears whole or not at all."""
    scale = min(ANIMATION_PX / max(frames.shape[1:3]), 1.0)
    size = (round(frames.shape[2] * scale), round(frames.shape[1] * scale))
    pictures = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames]
    text = _marked(settings).encode()
    kind = file.suffix.lower()
    options: dict[str, Any] = {"comment": text} if kind == ".gif" else {"xmp": text, "quality": 90, "method": 2}
    with _whole(file) as part:
        iio.imwrite(part, np.stack(pictures), plugin="pillow", extension=kind, duration=1000 / fps, loop=0, **options)


# --- and in again --------------------------------------------------------------------------------------------------

MAX_FILE_BYTES = 200_000_000
MAX_TEXT_BYTES = 1_000_000
_MAX_CHUNKS = 100_000
_PNG = b"\x89PNG\r\n\x1a\n"
_MARK = "made_by"  # what tells our comment from any other program's
_MADE_BY = "opensora-demo"
# Names of texts in PNGs, and of fields in comments, by which other programs are known.
_PROGRAMS = {
    "parameters": "Stable Diffusion web UI",
    "workflow": "ComfyUI",
    "prompt": "ComfyUI",
    "invokeai_metadata": "InvokeAI",
    "invokeai_graph": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
    "sui_image_params": "SwarmUI",
}


def _marked(settings: Mapping[str, Any]) -> str:
    """Settings as they stand in a file."""
    return json.dumps({_MARK: _MADE_BY, **settings}, ensure_ascii=False)


def read_settings(file: Path, models: Container[object] = ()) -> dict[str, Any] | None:
    """The settings inside a file of this module (mp4, PNG, GIF, WebP), told apart by their first bytes, or None where
    there are none.

    Only what this module wrote counts, by its mark; without one (files of version 0.1) by a "model" of `models`.
    Raises RequestError("file") naming the program where another one left its settings. Files of more than 200 MB and
    texts of more than 1 MB are refused. No pixels are decoded.
    """
    try:
        if not file.is_file() or file.stat().st_size > MAX_FILE_BYTES:
            return None
        with file.open("rb") as data:
            start = data.read(12)
            texts = _texts(start, data)
        text = texts.get("comment", "")
        found = json.loads(text) if text and len(text) <= MAX_TEXT_BYTES else None
    except (OSError, ValueError, IndexError, RecursionError, RequestError):  # av's are OSErrors or ValueErrors
        return None
    settings = found if isinstance(found, dict) else {}
    if settings.get(_MARK) == _MADE_BY or str(settings.get("model")) in models:
        return {name: value for name, value in settings.items() if name != _MARK}
    if program := _program(texts, settings):
        raise RequestError("file", message("request.other_program", program=program))
    return None


def _program(texts: Mapping[str, str], comment: Mapping[str, Any]) -> Param | None:
    """Whose settings these are; None where there are none."""
    if "wangp" in str(comment.get("type", ""))[:100].lower():
        return "Wan2GP"
    names = {name.lower() for name in (*texts, *comment)}
    own = next((program for name, program in _PROGRAMS.items() if name in names), None)
    typed = isinstance(comment.get("prompt"), str) and not comment["prompt"].lstrip().startswith("{")
    if comment and (own is None or (own == "ComfyUI" and typed)):
        return message("request.some_program")
    return own


def read_mp4(file: Path) -> tuple[Frames, int]:
    """The frames (t, h, w, 3) uint8 of a clip that `write_mp4` wrote, and how many a second: of its own files, nobody
    else's."""
    with av.open(str(file), format="mp4") as container:
        stream = container.streams.video[0]
        fps, scaler = round(stream.average_rate or 1), VideoReformatter()
        frames = (scaler.reformat(frame, format="rgb24", threads=1) for frame in container.decode(stream))
        return np.stack([frame.to_ndarray() for frame in frames]), fps


def _texts(start: bytes, data: BinaryIO) -> dict[str, str]:
    """Texts in a file by name: "comment", where ours stands, and of a PNG the others' names, their texts left out."""
    if start[:8] == _PNG:
        data.seek(8)
        return _png_texts(data)
    if start[4:8] == b"ftyp":
        data.seek(0)
        text = _mp4_comment(data)
    elif start[:4] == b"GIF8":
        data.seek(0)
        text = _gif_comment(data)
    elif start[:4] == b"RIFF" and start[8:] == b"WEBP":
        text = _webp_comment(data)
    else:
        text = None
    return {} if text is None else {"comment": text}


def _gif_comment(data: BinaryIO) -> str | None:
    """The comment in front of the first picture. Source: GIF89a specification, 18 and 24."""
    header = data.read(13)
    if len(header) < 13:
        return None
    if header[10] & 0x80:
        data.seek(3 << (header[10] & 7) + 1, os.SEEK_CUR)  # the global colours
    while data.read(1) == b"!":
        kind, body = data.read(1), b""
        while size := data.read(1)[0]:
            body += data.read(size)
            if len(body) > MAX_TEXT_BYTES:
                return None
        if kind == b"\xfe":
            return body.decode()
    return None


def _webp_comment(data: BinaryIO) -> str | None:
    """The XMP chunk, read from behind the header. Source: WebP container specification, "Metadata"."""
    for _ in range(_MAX_CHUNKS):
        header = data.read(8)
        if len(header) < 8:
            return None
        kind, length = struct.unpack("<4sI", header)
        if kind == b"XMP ":
            return data.read(length).decode() if length <= MAX_TEXT_BYTES else None
        data.seek(length + length % 2, os.SEEK_CUR)
    return None


def _mp4_comment(data: BinaryIO) -> str | None:
    with _opened(data, "mp4") as container:
        return container.metadata.get("comment")


def _png_texts(data: BinaryIO) -> dict[str, str]:
    """Of a PNG that is whole the first text named "comment", and the names of its other texts, read from behind its
    signature.

    Walks over the chunks from length to length, so that nothing but this text comes into memory: Pillow bounds
    compressed texts, but reads a plain one of any size. Compressed texts, which may be bombs, are not ours.
    """
    found: dict[str, str] = {}
    end = os.fstat(data.fileno()).st_size
    for _ in range(_MAX_CHUNKS):
        header = data.read(8)
        if len(header) < 8:
            return {}
        length, kind = struct.unpack(">I4s", header)
        body_at = data.tell()
        if body_at + length + 4 > end:
            return {}
        if kind == b"IEND":
            return found
        if kind in (b"iTXt", b"tEXt", b"zTXt"):
            name = data.read(min(length, 80)).partition(b"\0")[0].decode("latin-1").lower()  # of at most 79 bytes
            data.seek(body_at)
            if name == "comment" and name not in found and kind != b"zTXt" and length <= MAX_TEXT_BYTES + 100:
                body, checksum = data.read(length), data.read(4)
                if zlib.crc32(kind + body) == int.from_bytes(checksum):
                    found |= _png_comment(kind, body.partition(b"\0")[2])
                continue
            if name != "comment" and len(found) < _MAX_NAMES:
                found[name] = ""
        data.seek(body_at + length + 4)
    return {}


_MAX_NAMES = 100


def _png_comment(kind: bytes, value: bytes) -> dict[str, str]:
    if kind == b"tEXt":
        return {"comment": value.decode("latin-1")}
    if value[:1] == b"\0" and value.count(b"\0", 2) >= 2:  # flag of compression, method, language, its name, text
        return {"comment": value[2:].split(b"\0", 2)[2].decode()}
    return {}


def jpeg_strip(frames: Frames, height_px: int = 64, quality: int = 80, *, fine: bool = True) -> str:
    """Frames side by side as one JPEG data URI: what the browser animates as the live preview. Without `fine` colours
    are coarser than light."""
    scale = max(1, round(height_px / frames.shape[1]))
    strip = Image.fromarray(np.concatenate(list(frames), axis=1))
    if scale > 1:
        strip = strip.resize((strip.width * scale, strip.height * scale), Image.Resampling.BICUBIC)
    return _data_uri(strip, "JPEG", quality=quality, subsampling=0 if fine else 2)


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
