"""Clips in one table: a single film that shows them all in step, under their labels."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from opensora_demo.media import MIN_FILE_PX, enlarge
from opensora_demo.request.video import Frames

MAX_ROWS, MAX_COLUMNS = 4, 6
MAX_GRID_PX = 1920  # wide; only clips that are large themselves make a wider one
_BAR_PX, _GAP_PX = 28, 6
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
) -> tuple[Iterator[NDArray[np.uint8]], int]:
    """Clips (t, h, w, 3) in one table under its column labels, beside row labels if there are several rows: (pictures
    (h, w, 3), frames per second). Pictures are made one by one: of large clips they would not fit the memory.

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
    ground = np.empty((height, width, 3), np.uint8)
    ground[:] = _GROUND
    for j, label in enumerate(columns):
        x = side + _GAP_PX + j * (w + _GAP_PX)
        ground[_GAP_PX : _GAP_PX + _BAR_PX, x + 4 : x + w] = _label(label, _BAR_PX, w - 4)
    tops = [_GAP_PX + _BAR_PX + i * (h + _GAP_PX) for i in range(len(rows))]
    for top, label in zip(tops, row_labels, strict=True):
        if side:
            ground[top : top + h, 2 * _GAP_PX : side] = _label(label, h, beside)

    def picture(at: int) -> NDArray[np.uint8]:
        grid = ground.copy()
        for top, row, own in zip(tops, rows, fps, strict=True):
            for j, clip in enumerate(row):
                shown = min(at * own // rate, len(clip) - 1)
                factor = min(h // clip.shape[1], w // clip.shape[2])
                large = enlarge(clip[shown : shown + 1], factor * min(clip.shape[1:3]))[0]
                y = top + (h - large.shape[0]) // 2
                x = side + _GAP_PX + j * (w + _GAP_PX) + (w - large.shape[1]) // 2
                grid[y : y + large.shape[0], x : x + large.shape[1]] = large
        return grid

    return map(picture, range(length)), rate


def tiled(clips: Sequence[Frames]) -> Frames:
    """Clips (t, h, w, 3) of one shape in as square a table as may be, its last places black: (t, H, W, 3)."""
    across = math.ceil(math.sqrt(len(clips)))
    t, h, w, c = clips[0].shape
    table = np.zeros((t, math.ceil(len(clips) / across) * h, across * w, c), np.uint8)
    for i, clip in enumerate(clips):
        y, x = i // across * h, i % across * w
        table[:, y : y + h, x : x + w] = clip
    return table
