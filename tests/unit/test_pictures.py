"""Given pictures: as a browser shows them, and in bounded memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from opensora_demo.errors import RequestError
from opensora_demo.pictures import read_reference

SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))  # in D50, as ICC has it
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841))


def profile(primaries: tuple[tuple[float, ...], ...], gamma: float) -> bytes:
    """A matrix profile: ICC.1:2010, 7.2 (header), 7.3 (tags), 9.2, 10.5 (curveType), 10.31 (XYZType)."""

    def fixed(*numbers: float) -> bytes:
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)}
    for name, xyz in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(*xyz)
        tags[name + b"TRC"] = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    at, table, data = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", at + len(data), len(body))
        data += body
    header = struct.pack(">II4x4s4s4s", at + len(data), 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    header += bytes(28) + fixed(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + table + data


def seen(image: Image.Image, kind: str = "PNG", **options: object) -> list[int]:
    """The colour that the model gets in the middle of a picture."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return [int(value) for value in read_reference(file, 64, 64)[0, 32, 32]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "AVIF"])
def test_a_colour_profile_counts(kind: str) -> None:
    options: dict[str, object] = {"quality": 100} if kind != "PNG" else {}
    light = seen(Image.new("RGB", (80, 80), (55, 55, 55)), kind, icc_profile=profile(SRGB, 1.0), **options)
    assert np.abs(np.array(light) - 128).max() <= 2  # 55 / 255 of the light is 128 in sRGB
    wide = profile(DISPLAY_P3, 2.2)
    assert (
        np.abs(
            np.array(seen(Image.new("RGB", (80, 80), (0, 255, 0)), kind, icc_profile=wide, **options)) - (0, 255, 0)
        ).max()
        <= 4
    )
    orange = seen(Image.new("RGB", (80, 80), (200, 100, 50)), kind, icc_profile=wide, **options)
    assert orange[0] > 210 > 100 > orange[1]  # outside of what the numbers say in sRGB


def test_a_profile_of_other_channels_or_a_broken_one_is_passed_over() -> None:
    plain = Image.new("RGB", (80, 80), (200, 100, 50))
    for broken in (b"no profile", profile(SRGB, 1.0)[:200], profile(SRGB, 1.0).replace(b"RGB ", b"CMYK")):
        assert seen(plain, icc_profile=broken) == [200, 100, 50]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.abs(np.array(seen(plain, icc_profile=srgb)) - (200, 100, 50)).max() <= 1
    assert seen(plain.convert("P"), icc_profile=srgb) == seen(plain.convert("P").convert("RGB"))
    clear = Image.new("RGBA", (80, 80), (55, 55, 55, 0))
    assert seen(clear, icc_profile=profile(SRGB, 1.0)) == [255, 255, 255]


@pytest.mark.parametrize("kind", ["GIF", "AVIF", "WEBP"])
def test_the_first_picture_of_an_animation_counts(kind: str) -> None:
    first, second = Image.new("RGB", (80, 80), "red"), Image.new("RGB", (80, 80), "blue")
    colour = seen(first, kind, save_all=True, append_images=[second], duration=100, loop=0)
    assert np.abs(np.array(colour) - (255, 0, 0)).max() <= 4


def test_a_dark_picture_of_16_bits_stays_dark() -> None:
    assert seen(Image.fromarray(np.full((80, 80), 200, np.uint16))) == [0, 0, 0]


PEAK = """
import io, resource, sys
import numpy as np
from PIL import Image
from opensora_demo.pictures import read_reference
read_reference({small!r}, 64, 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
frames = read_reference({large!r}, 64, 96)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *frames.mean((0, 1, 2)).round())
"""


def peak_kb(small: Path, large: Path) -> tuple[int, list[float]]:
    code = PEAK.format(small=str(small), large=str(large))
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return int(out[0]), [float(value) for value in out[1:]]


def tall_jpeg(width: int, height: int, grey: int) -> bytes:
    """A flat JPEG whose lines of blocks are copies of one another. Source: ITU-T T.81, B.2.1 and E.1.4 (restarts)."""
    Image.new("L", (width, 16), grey).save(data := io.BytesIO(), "JPEG", restart_marker_rows=1)
    one = data.getvalue()
    at = one.index(b"\xff\xc0") + 5
    scan = one.index(b"\xff\xda")
    begin = scan + 2 + int.from_bytes(one[scan + 2 : scan + 4])
    line = one[begin : one.index(b"\xff\xd0", begin)]
    lines = b"".join(line + bytes((0xFF, 0xD0 + k % 8)) for k in range(height // 8 - 1)) + line
    return one[:at] + struct.pack(">H", height) + one[at + 2 : begin] + lines + b"\xff\xd9"


def test_a_phone_s_photo_is_read_in_little_memory(tmp_path: Path) -> None:
    """200 megapixels, which are 800 MB in memory."""
    small, large = tmp_path / "small.jpg", tmp_path / "large.jpg"
    Image.new("RGB", (80, 80)).save(small)
    large.write_bytes(tall_jpeg(16320, 12240, 90))
    peak, colour = peak_kb(small, large)
    assert colour == [90, 90, 90]
    assert peak < 60_000


def test_a_large_photo_that_lies_on_its_side_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    tall = Image.new("L", (5000, 4000), 20)
    tall.paste(200, (0, 0, 5000, 2000))
    tall.save(file := io.BytesIO(), "JPEG", exif=exif)
    frames = read_reference(file, 64, 48)
    assert frames[0, 32, 40].min() > 180
    assert frames[0, 32, 8].max() < 40


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L", "LA", "P"])
def test_large_pictures_of_other_kinds_are_as_small_ones(mode: str) -> None:
    """Band by band comes to the same as all at once."""
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 4), np.uint8)
    image = Image.fromarray(pixels).resize((1600, 1200), Image.Resampling.NEAREST).convert(mode)
    image.save(file := io.BytesIO(), "PNG", compress_level=1)
    over = Image.new("RGBA", image.size, "white")
    over.alpha_composite(image.convert("RGBA"))
    whole = np.asarray(over.convert("RGB").resize((32, 24), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(read_reference(file, 24, 32)[0] - whole).mean() < 3


def test_what_would_cost_much_memory_is_refused_by_its_header(tmp_path: Path) -> None:
    """Of a progressive JPEG all coefficients are held, whatever size is asked for."""
    Image.new("RGB", (16, 16)).save(data := io.BytesIO(), "JPEG", progressive=True)
    head = data.getvalue()
    at = head.index(b"\xff\xc2") + 5
    large = io.BytesIO(head[:at] + struct.pack(">HH", 16_000, 16_000) + head[at + 4 :])
    with pytest.raises(RequestError, match="the image has 16000 x 16000 pixels; at most 105 megapixels are read"):
        read_reference(large, 64, 64)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"reference: there is no file nofile\.png"):
        read_reference(tmp_path / "nofile.png", 64, 64)
