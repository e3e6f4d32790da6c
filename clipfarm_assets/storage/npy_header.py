"""Reading the header of an npy file without trusting it.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. ``numpy.load``
allocates what a header asks for, and runs pickles if allowed to; here a header is text matched
against what numpy writes, and a claim is checked before anything is allocated.
"""

import math
import re
from dataclasses import dataclass
from typing import Final

import numpy as np

MAGIC: Final = b"\x93NUMPY"
#: Longest header accepted; numpy's own limit.
MAX_HEADER_BYTES: Final = 10_000
#: Bytes that hold a header of that length for sure.
HEAD_BYTES: Final = MAX_HEADER_BYTES + 12

_HEADER = re.compile(
    r"\{\s*'descr':\s*(?P<descr>'[^']*'|\[.*\])\s*,"
    r"\s*'fortran_order':\s*(?P<fortran>True|False)\s*,"
    r"\s*'shape':\s*\((?P<shape>[\d,\s]*)\)\s*,?\s*\}\s*",
    flags=re.ASCII | re.DOTALL,
)
_DTYPE = re.compile(r"[<|]([biufUS]\d{1,9}|b1)")
_SHAPE = re.compile(r"(?:\s*\d{1,18}\s*,)*(?:\s*\d{1,18}\s*)?", flags=re.ASCII)


class BadNpy(ValueError):  # noqa: N818
    """Not an array this house reads. The message is a clause: it says what was found."""


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """A checked header.

    Attributes:
        dtype: Little-endian bool, integer, float or fixed-length string.
        shape: The array's shape.
        fortran_order: Whether the first axis runs fastest.
        offset: Where the values begin, in bytes.
    """

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran_order: bool
    offset: int

    @property
    def total_bytes(self) -> int:
        """Length of the whole file, by its own claim."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_npy_header(head: bytes | bytearray | memoryview) -> NpyHeader:
    """Parse the header at the beginning of `head`, at least `HEAD_BYTES` or the whole file.

    Raises:
        BadNpy: Not npy, a dtype that needs pickle or is not plain, or a malformed header.
    """
    head = bytes(head[:HEAD_BYTES])
    if head[:6] != MAGIC:
        msg = f"it does not begin as an npy file does (found {head[:6]!r})"
        raise BadNpy(msg)
    width = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}.get(head[6:8])
    if width is None:
        msg = f"its npy version is {tuple(head[6:8])}, not 1.0, 2.0 or 3.0"
        raise BadNpy(msg)
    length = int.from_bytes(head[8 : 8 + width], "little")
    offset = 8 + width + length
    if length > MAX_HEADER_BYTES or offset > len(head):
        raise BadNpy("its npy header is cut off or too long")
    match = _HEADER.fullmatch(head[8 + width : offset].decode("latin-1"))
    if match is None or not _SHAPE.fullmatch(match["shape"]):
        raise BadNpy("its npy header is malformed")
    shape = tuple(int(n) for n in match["shape"].split(",") if n.strip())
    return NpyHeader(_dtype(match["descr"]), shape, match["fortran"] == "True", offset)


def _dtype(descr: str) -> np.dtype[np.generic]:
    name = descr[1:-1]
    if name.startswith("|O"):
        raise BadNpy(
            "it holds pickled Python objects, which are never loaded because loading runs code; "
            "write it again with a plain dtype (strings: np.asarray(values, dtype=str))"
        )
    if not _DTYPE.fullmatch(name):
        msg = f"its dtype {descr[:60]} is not a little-endian bool, integer, float or string"
        raise BadNpy(msg)
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        msg = f"its dtype {descr} does not exist"
        raise BadNpy(msg) from error
    if dtype.itemsize == 0:
        msg = f"its dtype {descr} has no width"
        raise BadNpy(msg)
    return dtype
