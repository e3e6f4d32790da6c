"""One embedding as one npy object."""

import io
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.storage.npy_header import BadNpy, read_npy_header

_HEADER_BYTES: Final = 128  # what numpy writes for any 1-D array of a plain dtype
_ACCEPTED: Final = (np.dtype("<f4"), np.dtype("<f8"))


class BadVector(ValueError):  # noqa: N818
    """Not a finite 1-D vector of the expected length."""


def vector_to_npy(vector: NDArray[np.float32]) -> bytes:
    """Serialise a vector, byte for byte as ``np.save`` does.

    Args:
        vector: float32 of shape ``(dim,)``, finite, at least one element.

    Raises:
        BadVector: It is anything else.
    """
    if vector.dtype != np.float32 or vector.ndim != 1:
        msg = f"expected a 1-D float32 vector, found {vector.dtype} of shape {vector.shape}"
        raise BadVector(msg)
    _check(vector, None)
    return _header(vector.size) + vector.astype("<f4", copy=False).tobytes()


def npy_to_vector(data: bytes, dim: int | None = None) -> NDArray[np.float32]:
    """Read a vector written by `vector_to_npy` or by an older deployment.

    Accepts 1-D little-endian float32, and float64, which is rounded to float32; nothing else: no
    other dtype, no pickle, no bytes missing or left over.

    Args:
        data: The npy file.
        dim: The expected length, if known.

    Returns:
        A new float32 array of shape ``(dim,)``, all finite.

    Raises:
        BadVector: One sentence saying what was found.
    """
    count, odd = divmod(len(data) - _HEADER_BYTES, 4)
    if odd == 0 and count > 0 and data.startswith(_header(count)):
        vector = np.frombuffer(data, "<f4", offset=_HEADER_BYTES).astype(np.float32)
    else:
        vector = _read_strictly(data)
    _check(vector, dim)
    return vector


def _read_strictly(data: bytes) -> NDArray[np.float32]:
    try:
        header = read_npy_header(data)
    except BadNpy as error:
        msg = f"not an embedding: {error}"
        raise BadVector(msg) from error
    if header.dtype not in _ACCEPTED or len(header.shape) != 1:
        msg = (
            f"expected a 1-D float32 or float64 vector, found {header.dtype} of shape "
            f"{header.shape}"
        )
        raise BadVector(msg)
    if header.total_bytes != len(data):
        msg = (
            f"the header asks for {header.total_bytes} bytes and the object has {len(data)}: it "
            "is cut off or damaged"
        )
        raise BadVector(msg)
    values = np.frombuffer(data, header.dtype, offset=header.offset)
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is found as non-finite below
        return values.astype(np.float32)


def _check(vector: NDArray[np.float32], dim: int | None) -> None:
    if vector.size == 0:
        raise BadVector("the vector is empty")
    if dim is not None and vector.size != dim:
        msg = f"expected {dim} dimensions, found {vector.size}"
        raise BadVector(msg)
    finite = np.isfinite(vector)
    if not finite.all():
        msg = (
            f"{int((~finite).sum())} of {vector.size} values are not finite, the first at "
            f"{int(finite.argmin())}"
        )
        raise BadVector(msg)


@lru_cache(maxsize=64)
def _header(count: int) -> bytes:
    """Magic, version 1.0 and header of a float32 vector of `count` values, as numpy writes them."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (count,)}
    )
    return buffer.getvalue()
