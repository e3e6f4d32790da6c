"""Image files: the same bytes, upright and RGB, within bounds, and refused when damaged."""

import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from clipfarm_assets.storage.images import (
    CHANGES,
    BadImage,
    ImageLimits,
    decode_rgb,
    rgb_png,
    versions,
)


def picture(width=40, height=30, mode="RGB", seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image):
    return np.asarray(image.convert("RGB"))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def claimed_png(width, height, data=b""):
    """A PNG that says it is so large, one bit a pixel."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunks(png):
    at, found = 8, []
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        found.append(png[at + 4 : at + 8])
        at += 12 + length
    return found


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG", "GIF"])
def test_pixels_are_those_of_pillow_and_bytes_are_the_same_each_time(kind):
    data = saved(picture(), kind, **({"lossless": True} if kind == "WEBP" else {}))
    stored = rgb_png(data)
    with Image.open(io.BytesIO(data)) as plain, Image.open(io.BytesIO(stored.data)) as ours:
        assert (ours.mode, ours.format, ours.size) == ("RGB", "PNG", (40, 30))
        assert (stored.width, stored.height) == (40, 30)
        assert np.array_equal(pixels(plain), np.asarray(ours))
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: rgb_png(data).data, range(12))) == {stored.data}
    assert rgb_png(stored.data) == type(stored)(stored.data, 40, 30, ())  # a fixed point
    assert stored.changes == (("palette",) if kind == "GIF" else ())


def test_the_same_bytes_in_another_process():
    code = (
        "import sys; from clipfarm_assets.storage.images import rgb_png;"
        "sys.stdout.buffer.write(rgb_png(sys.stdin.buffer.read()).data)"
    )
    data = saved(picture(200, 100), "JPEG")
    run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert run.stdout == rgb_png(data).data


def test_no_metadata_is_kept():
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "secret")
    info.add_itxt("XML:com.adobe.xmp", "<x>secret</x>")
    options = {"exif": exif, "pnginfo": info, "dpi": (72, 72), "icc_profile": b"profile" * 9}
    stored = rgb_png(saved(picture(), **options))
    assert set(chunks(stored.data)) == {b"IHDR", b"IDAT", b"IEND"}
    assert stored.changes == ("profile_dropped",)
    assert stored.data == rgb_png(saved(picture())).data


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied_as_pillow_does(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture(), kind, exif=exif)
    image, changes = decode_rgb(data)
    with Image.open(io.BytesIO(data)) as plain:
        assert np.array_equal(np.asarray(image), pixels(ImageOps.exif_transpose(plain)))
    assert changes == (("turned",) if 2 <= orientation <= 8 else ())


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's
@pytest.mark.parametrize(
    "damage", [b"MM\0\x2a\xff\xff\xff\xff", b"junk", b"", b"MM\0\x2a\0\0\0\x08\0\x09"]
)
def test_broken_exif_spoils_no_image(damage):
    data = saved(picture(), "JPEG", exif=b"Exif\0\0" + damage)
    image, changes = decode_rgb(data)
    assert changes == ("exif_unreadable",)
    assert np.array_equal(np.asarray(image), pixels(decode_rgb(saved(picture(), "JPEG"))[0]))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken_and_counted(kind):
    frames = [picture(seed=n) for n in range(3)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    image, changes = decode_rgb(data)
    assert changes[0] == "first_frame"
    with Image.open(io.BytesIO(data)) as plain:
        assert plain.n_frames == 3
        assert np.array_equal(np.asarray(image), pixels(plain))


def test_grey_palette_and_cmyk():
    for mode, kind, change in [
        ("1", "PNG", "grey"),
        ("L", "PNG", "grey"),
        ("L", "JPEG", "grey"),
        ("P", "PNG", "palette"),
        ("CMYK", "JPEG", "cmyk"),
    ]:
        data = saved(picture(mode=mode), kind)
        image, changes = decode_rgb(data)
        with Image.open(io.BytesIO(data)) as plain:
            assert np.array_equal(np.asarray(image), pixels(plain))
        assert changes == (change,)


def on_white(rgba):
    """By the formula of alpha compositing, in whole numbers up to rounding."""
    values = np.asarray(rgba).astype(np.float64)
    alpha = values[..., 3:] / 255
    return values[..., :3] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_images_are_laid_on_white(kind):
    image = picture(mode="RGBA")
    image.putalpha(picture(mode="L", seed=1))
    stored, changes = decode_rgb(saved(image, kind, lossless=True, exact=True))
    assert changes == ("transparent",)
    assert np.abs(np.asarray(stored) - on_white(image)).max() <= 1
    image.putalpha(255)
    assert decode_rgb(saved(image, kind, lossless=True))[1] == ()


@pytest.mark.parametrize(
    ("mode", "transparency", "change"),
    [
        ("L", 7, "grey"),
        ("RGB", (7, 7, 7), None),
        ("P", 0, "palette"),
        ("P", bytes([0, 128]), "palette"),
    ],
)
def test_transparent_colours_are_white(mode, transparency, change):
    if mode == "P":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([1, 2, 3, 4, 5, 6, 7, 8, 9])
        image.putpixel((1, 1), 1)
        image.putpixel((2, 2), 2)
    else:
        image = Image.new(mode, (4, 4), transparency)
        image.putpixel((2, 2), (7 if mode == "L" else (7, 8, 9)) if mode == "RGB" else 9)
    stored, changes = decode_rgb(saved(image, transparency=transparency))
    assert changes == tuple(name for name in (change, "transparent") if name)
    assert stored.getpixel((0, 0)) == (255, 255, 255)
    assert stored.getpixel((2, 2)) == {"L": (9,) * 3, "RGB": (7, 8, 9), "P": (7, 8, 9)}[mode]


def test_sixteen_bits_are_not_cut_off():
    levels = np.linspace(0, 65535, 300, dtype=np.uint16).reshape(10, 30)
    data = saved(Image.fromarray(levels))
    image, changes = decode_rgb(data)
    assert changes == ("grey", "sixteen_bit")
    assert np.array_equal(np.asarray(image)[..., 0], (levels >> 8).astype(np.uint8))


def test_large_images_are_shrunk():
    for size, expected in [((300, 200), (60, 40)), ((1000, 1), (60, 1)), ((60, 60), (60, 60))]:
        image, changes = decode_rgb(saved(picture(*size)), ImageLimits(longest_side=60))
        assert image.size == expected
        assert changes == (("shrunk",) if max(size) > 60 else ())
    whole = picture(300, 200)
    image, _ = decode_rgb(saved(whole), ImageLimits(longest_side=60))
    assert np.array_equal(np.asarray(image), pixels(whole.resize((60, 40), Image.LANCZOS)))


def test_all_changes_are_explained():
    assert all(name.isidentifier() and told for name, told in CHANGES.items())


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "none of PNG"),
        (b"not an image", "begins with b'not an i'"),
        (saved(picture(), "TIFF"), "none of PNG"),
        (saved(picture(), "PPM"), "none of PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of PNG"),
        (claimed_png(60_000, 60_000), "far more than 33554432 pixels"),
        (claimed_png(6000, 6000), "6000 x 6000 pixels, of 33554432"),
        (claimed_png(100, 100), "can't be decoded"),
    ],
)
def test_what_is_no_image_within_bounds_is_refused(data, told):
    with pytest.raises(BadImage, match=told):
        rgb_png(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_truncated_images_are_refused(kind):
    data = saved(picture(), kind)
    for length in range(0, len(data) - 3, max(1, len(data) // 40)):
        with pytest.raises(BadImage):
            rgb_png(data[:length])


def test_a_damaged_byte_of_a_png_is_found():
    data = saved(picture())
    for position in range(8, len(data), 61):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(BadImage):
            rgb_png(bytes(damaged))


@given(
    where=st.integers(0, 10_000),
    flip=st.integers(1, 255),
    kind=st.sampled_from(["JPEG", "GIF", "WEBP", "BMP"]),
)
def test_damage_of_other_kinds_is_an_image_or_refused(where, flip, kind):
    data = bytearray(saved(picture(12, 9), kind))
    data[where % len(data)] ^= flip
    with suppress(BadImage):
        assert decode_rgb(bytes(data), ImageLimits(pixels=1 << 16))[0].mode == "RGB"


BOMB = """
import io, resource, struct, sys, zlib
from clipfarm_assets.storage.images import BadImage, rgb_png
from PIL import Image
data = sys.stdin.buffer.read()
Image.init()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    rgb_png(data)
except BadImage as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_decompression_bomb_takes_no_memory():
    """9,000 x 9,000 pixels that are really there, in 10 KB; below what Pillow itself refuses."""
    bomb = claimed_png(9000, 9000, bytes((9000 // 8 + 1) * 9000))
    assert len(bomb) < 20_000
    run = subprocess.run([sys.executable, "-c", BOMB], input=bomb, capture_output=True, check=True)
    told, grown = run.stdout.decode().splitlines()
    assert told == "it has 9000 x 9000 pixels, of 33554432 at most"
    assert int(grown) < 30  # MiB; decoded it would be 81 to 243


def test_limits_are_positive_and_hold():
    with pytest.raises(ValueError, match="1 or more"):
        ImageLimits(pixels=0)
    data = saved(picture())
    with pytest.raises(BadImage, match=f"{len(data)} bytes, of {len(data) - 1} at most"):
        rgb_png(data, ImageLimits(file_bytes=len(data) - 1))
    with pytest.raises(BadImage, match="40 x 30 pixels, of 1199"):
        rgb_png(data, ImageLimits(pixels=1199))
    assert rgb_png(data, ImageLimits(file_bytes=len(data), pixels=1200)).width == 40


def test_versions_are_told():
    found = versions()
    assert found["pil"] == Image.__version__
    assert found["zlib"] != "none"
