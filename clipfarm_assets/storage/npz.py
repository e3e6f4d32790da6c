"""Named arrays in one npz object."""

import io
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.storage.npy_header import HEAD_BYTES, BadNpy, NpyHeader, read_npy_header

#: Most bytes all arrays of one object may take in memory.
MAX_BYTES: Final = 1 << 30

_PLAIN_KINDS: Final = "biufUS"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
_ENCRYPTED: Final = 0x1
_MAX_CODE_POINT: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)
# A local file header: its length, and at its end those of the name and the extra field that follow
# it. Source: .ZIP File Format Specification, 4.3.7.
_LOCAL_HEADER_BYTES: Final = 30
_LOCAL_LENGTHS: Final = struct.Struct("<HH")


class BadShard(ValueError):  # noqa: N818
    """Not an npz of plain arrays within the limits."""


def arrays_to_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Serialise arrays, uncompressed, for ``np.load(allow_pickle=False)``.

    Equal arrays give equal bytes: members are sorted by name and carry no time of writing.

    Raises:
        BadShard: An array is of objects or of a structured dtype; nothing is pickled.
    """
    file = _Pieces()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
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
    return file.joined()


class _Pieces:
    """What `zipfile` needs of a seekable file, as the pieces written: each is copied once."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes | memoryview] = {}  # by position, which only grows
        self._position = 0

    def write(self, piece: bytes | memoryview, /) -> int:
        """Append, or replace a piece of the same length, as headers are once sizes are known."""
        length = len(piece)
        replaced = self._pieces.get(self._position)
        if replaced is not None and len(replaced) != length:
            msg = f"a piece of {len(replaced)} bytes can't be replaced by {length}"
            raise ValueError(msg)
        if length:
            self._pieces[self._position] = piece
            self._position += length
        return length

    def seek(self, position: int, _whence: int = 0, /) -> int:
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""

    def joined(self) -> bytes:
        return b"".join(self._pieces.values())


def npz_to_arrays(
    data: bytes,
    *,
    names: Collection[str] | None = None,
    max_bytes: int = MAX_BYTES,
    views: bool = False,
) -> dict[str, NDArray[Any]]:
    """Read an npz without pickle, within limits.

    Sizes are read from the zip directory and the npy headers and checked before anything is
    allocated; checksums are verified. Compressed members of older shards are accepted.

    Args:
        data: The npz file.
        names: The arrays wanted, all of them required; by default whatever is there.
        max_bytes: Most bytes the wanted arrays may take together.
        views: Arrays that were stored uncompressed are given as parts of `data`: read-only, of any
            alignment, keeping all of it. What is verified is the same.

    Returns:
        Arrays by name, new ones but for `views`.

    Raises:
        BadShard: One sentence saying what was found.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _members(archive, names, max_bytes)
            return {
                name: _array(*_values(data, archive, name, info, views), name)
                for name, info in members.items()
            }
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


def _values(
    data: bytes, archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo, views: bool
) -> tuple[NpyHeader, bytearray | memoryview]:
    """A member's header and its values, their checksum compared."""
    with archive.open(info) as member:  # refuses a local header that contradicts the directory
        stored = _stored(data, info)
        head = member.read(HEAD_BYTES) if stored is None else stored[:HEAD_BYTES]
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
        if stored is not None:
            if zlib.crc32(stored) != info.CRC:
                msg = f"array {name!r} of the npz is damaged: its checksum is another"
                raise BadShard(msg)
            values = stored[header.offset :]
            return header, values if views else bytearray(values)
        inflated = bytearray(header.total_bytes - header.offset)
        begun = head[header.offset :]
        inflated[: len(begun)] = begun
        _fill(memoryview(inflated)[len(begun) :], member, name)
        return header, inflated


def _stored(data: bytes, info: zipfile.ZipInfo) -> memoryview | None:
    """The member as it lies in the file: None if compressed, or if its sizes contradict that.

    `zipfile` reads it in small parts and copies each of them twice.
    """
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        return None
    name_length, extra_length = _LOCAL_LENGTHS.unpack_from(data, info.header_offset + 26)
    start = info.header_offset + _LOCAL_HEADER_BYTES + name_length + extra_length
    stored = memoryview(data)[start : start + info.file_size]
    return stored if len(stored) == info.file_size else None


def _array(header: NpyHeader, values: bytearray | memoryview, name: str) -> NDArray[Any]:
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
    if points.max(initial=0) < _SURROGATES[0]:
        return
    surrogate = (points >= _SURROGATES[0]) & (points <= _SURROGATES[1])
    if (points > _MAX_CODE_POINT).any() or surrogate.any():
        msg = f"array {name!r} of the npz holds text that is not Unicode"
        raise BadShard(msg)
