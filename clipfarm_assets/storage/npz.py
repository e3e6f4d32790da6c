"""Named arrays in one npz object."""

import io
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.storage.npy_header import HEAD_BYTES, BadNpy, read_npy_header

#: Most bytes all arrays of one object may take in memory.
MAX_BYTES: Final = 1 << 30

_PLAIN_KINDS: Final = "biufUS"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
_ENCRYPTED: Final = 0x1
_MAX_CODE_POINT: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)


class BadShard(ValueError):  # noqa: N818
    """Not an npz of plain arrays within the limits."""


def arrays_to_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Serialise arrays, uncompressed, for ``np.load(allow_pickle=False)``.

    Equal arrays give equal bytes: members are sorted by name and carry no time of writing.

    Raises:
        BadShard: An array is of objects or of a structured dtype; nothing is pickled.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            array = np.asarray(arrays[name])
            if array.dtype.kind not in _PLAIN_KINDS:
                msg = f"array {name!r} is of dtype {array.dtype}: only plain dtypes can be stored"
                raise BadShard(msg)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.create_system = 3  # as on Unix, wherever it is written
            info.external_attr = 0o600 << 16
            info.file_size = array.nbytes + HEAD_BYTES  # an upper bound: decides on zip64
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            with archive.open(info, "w") as member:
                if little.flags.c_contiguous:
                    # What write_array does, without its copy of all values.
                    header = np.lib.format.header_data_from_array_1_0(little)
                    np.lib.format.write_array_header_1_0(member, header)
                    member.write(little.reshape(-1).view(np.uint8).data)
                else:
                    np.lib.format.write_array(member, little, allow_pickle=False)
    return buffer.getvalue()


def npz_to_arrays(
    data: bytes, *, names: Collection[str] | None = None, max_bytes: int = MAX_BYTES
) -> dict[str, NDArray[Any]]:
    """Read an npz without pickle, within limits.

    Sizes are read from the zip directory and the npy headers and checked before anything is
    allocated; checksums are verified. Compressed members of older shards are accepted.

    Args:
        data: The npz file.
        names: The arrays wanted, all of them required; by default whatever is there.
        max_bytes: Most bytes the wanted arrays may take together.

    Returns:
        New arrays by name.

    Raises:
        BadShard: One sentence saying what was found.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _members(archive, names, max_bytes)
            return {name: _read(archive, name, info) for name, info in members.items()}
    except BadShard:
        raise
    # What zipfile and zlib raise on damaged input, by their documentation and by trial.
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        OSError,
        OverflowError,
        RuntimeError,
        ValueError,
    ) as error:
        msg = f"not a readable npz file: {error}"
        raise BadShard(msg) from error


def _members(
    archive: zipfile.ZipFile, names: Collection[str] | None, max_bytes: int
) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in members:
            msg = f"the npz holds {name!r} twice"
            raise BadShard(msg)
        members[name] = info
    if names is not None:
        missing = sorted(set(names) - members.keys())
        if missing:
            msg = f"the npz lacks {', '.join(missing)}; it holds {', '.join(sorted(members))[:500]}"
            raise BadShard(msg)
        members = {name: members[name] for name in names}
    for name, info in members.items():
        if info.flag_bits & _ENCRYPTED:
            msg = f"array {name!r} of the npz is encrypted"
            raise BadShard(msg)
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            msg = f"array {name!r} of the npz is compressed by method {info.compress_type}"
            raise BadShard(msg)
    total = sum(info.file_size for info in members.values())
    if total > max_bytes:
        msg = f"the arrays of the npz take {total} bytes, more than the limit of {max_bytes}"
        raise BadShard(msg)
    return members


def _read(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        head = member.read(HEAD_BYTES)
        try:
            header = read_npy_header(head)
        except BadNpy as error:
            msg = f"array {name!r} of the npz cannot be read: {error}"
            raise BadShard(msg) from error
        if header.total_bytes != info.file_size:
            msg = (
                f"array {name!r} of the npz asks for {header.total_bytes} bytes and has "
                f"{info.file_size}: it is damaged"
            )
            raise BadShard(msg)
        values = bytearray(header.total_bytes - header.offset)
        begun = head[header.offset :]
        values[: len(begun)] = begun
        _fill(memoryview(values)[len(begun) :], member, name)
    array = np.frombuffer(values, header.dtype)
    if header.dtype.kind == "U":
        _check_text(array, name)
    try:
        return array.reshape(header.shape, order="F" if header.fortran_order else "C")
    except ValueError as error:  # such as (0, 10**18), an empty array with an impossible axis
        msg = f"array {name!r} of the npz has the impossible shape {header.shape}"
        raise BadShard(msg) from error


def _fill(target: memoryview, member: Any, name: str) -> None:
    while target:
        count = member.readinto(target)
        if not count:
            msg = f"array {name!r} of the npz is cut off"
            raise BadShard(msg)
        target = target[count:]
    member.read(1)  # reaching the end is what compares the checksum


def _check_text(array: NDArray[Any], name: str) -> None:
    points = array.view("<u4")
    surrogate = (points >= _SURROGATES[0]) & (points <= _SURROGATES[1])
    if (points > _MAX_CODE_POINT).any() or surrogate.any():
        msg = f"array {name!r} of the npz holds text that is not Unicode"
        raise BadShard(msg)
