"""Grids of images as PNG files; needs the extra `images`."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DropkitValueError

GAP = 2  # pixels between images, and around the grid
GREY = 128


def require() -> Any:
    """Pillow's module Image.

    Raises:
        DropkitValueError: the package pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise DropkitValueError(
            'drawing pictures needs pillow, which is not installed: pip install "dropkit[images]"'
        ) from None
    return Image


def grid(images: NDArray[np.floating], columns: int, *, least: int = 28) -> bytes:
    """Images in rows, from the left to the right, as a PNG file.

    Args:
        images: shape (samples, height, width) or (samples, 3, height, width), in [0, 1]; what lies outside is clipped,
            and what is not a number is black.
        columns: images in a row.
        least: images of fewer pixels a side are enlarged by a whole factor, until they have about as many.

    Raises:
        DropkitValueError: pillow is not installed.

    >>> grid(np.zeros((4, 8, 8)), columns=2)[:4]
    b'\\x89PNG'
    """
    module = require()
    pixels = np.rint(255 * np.nan_to_num(np.clip(images, 0, 1))).astype(np.uint8)
    factor = max(1, round(least / max(pixels.shape[-2:])))
    pixels = pixels.repeat(factor, -2).repeat(factor, -1)
    height, width = pixels.shape[-2:]
    rows = -(-len(pixels) // columns)
    shape = (*pixels.shape[1:-2], rows * (height + GAP) + GAP, columns * (width + GAP) + GAP)
    sheet = np.full(shape, GREY, np.uint8)
    for number, image in enumerate(pixels):
        top, left = GAP + number // columns * (height + GAP), GAP + number % columns * (width + GAP)
        sheet[..., top : top + height, left : left + width] = image
    content = io.BytesIO()
    module.fromarray(np.moveaxis(sheet, 0, -1) if sheet.ndim == 3 else sheet).save(content, "PNG", optimize=True)
    return content.getvalue()
