"""One picture in the forms in which people's image files come: formats, colour modes, transparency,
depth, orientation, frames."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def written(folder: Path, picture: Image.Image) -> list[Path]:
    """The files, all of `picture` (RGB)."""
    paths = []
    for name, image, options in forms(picture):
        image.save(folder / name, **options)
        paths.append(folder / name)
    return paths


def forms(picture: Image.Image) -> Iterator[tuple[str, Image.Image, dict[str, Any]]]:
    """File name, image, and what it is saved with."""
    grey, palette, cut_out = picture.convert("L"), picture.quantize(64), cut(picture)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    modes = {
        "1": picture.convert("1"),
        "L": grey,
        "LA": cut_out.convert("LA"),
        "P": palette,
        "RGB": picture,
        "RGBA": cut_out,
        "I16": deep,
    }
    for mode, image in modes.items():
        yield f"{mode}.png", image, {}
    yield "P-one-clear.png", palette, {"transparency": 3}
    yield "P-some-clear.png", palette, {"transparency": bytes([0, 128, 255, 60])}
    yield "L-one-clear.png", grey, {"transparency": int(np.asarray(grey)[5, 5])}
    yield (
        "RGB-one-clear.png",
        picture,
        {"transparency": tuple(int(value) for value in np.asarray(picture)[5, 5])},
    )
    yield "I16-one-clear.png", deep, {"transparency": int(np.asarray(deep)[5, 5])}
    for mode in ("L", "RGB", "CMYK"):
        yield f"{mode}.jpg", picture.convert(mode), {}
    yield "progressive.jpg", picture, {"progressive": True}
    yield "subsampled.jpg", picture, {"quality": 40, "subsampling": 2}
    for turn in range(1, 9):
        yield f"turned{turn}.jpg", picture, {"exif": turned(turn)}
    yield "turned3.png", picture, {"exif": turned(3)}
    yield "turned8.webp", picture, {"exif": turned(8)}
    for mode in ("L", "RGB", "RGBA", "CMYK", "I16"):
        yield f"{mode}.tiff", picture.convert("CMYK") if mode == "CMYK" else modes[mode], {}
    yield "turned6.tiff", picture, {"tiffinfo": {ORIENTATION: 6}}
    yield "packed.tiff", picture, {"compression": "tiff_lzw"}
    yield "RGB.webp", picture, {}
    yield "RGBA.webp", cut_out, {"lossless": True}
    yield (
        "frames.webp",
        picture,
        {"save_all": True, "append_images": [Image.new("RGB", picture.size)]},
    )
    yield "P.gif", palette, {}
    yield "P-one-clear.gif", palette, {"transparency": 3}
    yield "frames.gif", palette, {"save_all": True, "append_images": [Image.new("P", picture.size)]}
    yield "RGB.bmp", picture, {}
    yield "1.bmp", modes["1"], {}
    yield "RGB.ppm", picture, {}


def cut(picture: Image.Image) -> Image.Image:
    """The middle; what is cut away is clear, and black below."""
    width, height = picture.size
    hole = Image.new("L", picture.size, 0)
    hole.paste(255, (width // 5, height // 5, 4 * width // 5, 4 * height // 5))
    cutout = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    cutout.paste(picture.convert("RGBA"), mask=hole)
    return cutout


def turned(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif
