"""Shards of memes: tar files as WebDataset has them, written to the same bytes, read with distrust.

A sample is the files of a tar whose names are equal up to the first dot of their last segment:
``42953.txt``, ``42953.png`` and ``42953.json``, one after another in any order. Source: the
WebDataset format, https://github.com/webdataset/webdataset. Shards of other writers may have a JPEG
or WebP in place of the PNG, PAX or GNU headers, folders and files of other suffixes.

Nothing is ever extracted to where a name says. `tarfile` ends in silence at a header it can't read,
and webdataset with it; here everything between the first and the last byte is accounted for.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import SEEK_END
from typing import Any, BinaryIO, Final

#: Most bytes of a sample's image.
MAX_IMAGE_BYTES: Final = 64 << 20
#: Most bytes of a sample's text, and of its JSON.
MAX_TEXT_BYTES: Final = 1 << 20

_BLOCK: Final = tarfile.BLOCKSIZE
_RECORD: Final = tarfile.RECORDSIZE
_MODE: Final = 0o444
# What PAX records and long names may take. Several of tarfile's patterns take time that is
# quadratic in the length of a header, or of the numbers in it.
_MAX_HEADER_BYTES: Final = 16 << 10
_MAX_GLOBALS: Final = 64
_LONG_NUMBER: Final = re.compile(rb"\d{100}")

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PARTS: Final[Mapping[str, str]] = {
    "txt": "txt", "png": "image", "jpg": "image", "jpeg": "image", "webp": "image", "json": "json",
}  # fmt: skip
_MOST: Final[Mapping[str, int]] = {
    "txt": MAX_TEXT_BYTES, "image": MAX_IMAGE_BYTES, "json": MAX_TEXT_BYTES,
}  # fmt: skip

# As webdataset takes names apart: the key with its folders, and all that follows the first dot.
_NAME: Final = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", flags=re.DOTALL)
_META: Final = re.compile(r"__[^/]*__(?:$|/)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_LONGEST_NAME: Final = 1024
_SHOWN: Final = 200
_FAULTS_SHOWN: Final = 5


class DamagedShard(ValueError):  # noqa: N818 - reads better where it is raised
    """Not a whole tar: how many samples are lost can't be told. Names the shard."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One meme in a shard.

    Attributes:
        key: Names it within its set of shards.
        txt: Its text.
        png: Its image file: PNG in our shards, in others' perhaps JPEG or WebP.
        json: What else is known of it, such as ``labels``.
    """

    key: str
    txt: str
    png: bytes
    json: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BadSample:
    """Files of a shard that make no sample.

    Attributes:
        key: The sample's key, or the file's name if no key can be told from it.
        why: What was expected and found.
    """

    key: str
    why: str


def shard_bytes(samples: Sequence[Sample]) -> bytes:
    """A shard, in the ustar format, as `tarfile` and GNU tar write it.

    Equal samples give equal bytes: files are owned by nobody, of the year 1970, and lie in the
    order of `samples`, of each its txt, png and json. JSON has its names sorted.

    Raises:
        ValueError: A key is not 1 to 64 of ``A-Z a-z 0-9 _ -`` or is there twice, the image is no
            PNG, the JSON can't be written, or a part is longer than what is read again.
    """
    pieces: list[bytes] = []
    keys: set[str] = set()
    for sample in samples:
        if not _KEY.fullmatch(sample.key) or sample.key in keys:
            fault = "is there twice" if sample.key in keys else "is no key: 1 to 64 of A-Za-z0-9_-"
            msg = f"{sample.key!r:.100} {fault}"
            raise ValueError(msg)
        keys.add(sample.key)
        for suffix, data in _files(sample).items():
            pieces += (_header(f"{sample.key}.{suffix}", len(data)), data, bytes(_padding(data)))
    length = sum(map(len, pieces)) + 2 * _BLOCK  # two empty blocks are the end, …
    pieces.append(bytes(2 * _BLOCK + -length % _RECORD))  # … and whole records are the file
    return b"".join(pieces)


def stored_bytes(sample: Sample) -> int:
    """How many bytes of a shard a sample takes."""
    return sum(_BLOCK + len(data) + _padding(data) for data in _files(sample).values())


def _files(sample: Sample) -> dict[str, bytes]:
    """The contents of a sample's files, by suffix."""
    told = json.dumps(
        sample.json, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    files = {"txt": sample.txt.encode(), "png": sample.png, "json": told.encode()}
    for suffix, data in files.items():
        if len(data) > _MOST[_PARTS[suffix]]:
            msg = (
                f"the {suffix} of {sample.key!r:.100} may have {_MOST[_PARTS[suffix]]} bytes: "
                f"found {len(data)}"
            )
            raise ValueError(msg)
    if not sample.png.startswith(_PNG):
        msg = f"the image of {sample.key!r:.100} must be a PNG: it begins with {sample.png[:8]!r}"
        raise ValueError(msg)
    return files


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, _MODE
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _padding(data: bytes) -> int:
    return -len(data) % _BLOCK


def read_shard(file: BinaryIO, name: str) -> Iterator[Sample | BadSample]:
    """Read a shard sample by sample; one is in memory at a time.

    What is passed over without a word: folders, files whose name begins with two underscores and
    has two more at its end or before a slash (the format's own), and, of a sample that is whole,
    files of suffixes that mean nothing here. Nothing else is.

    Args:
        file: A tar that is not compressed, open for reading, seekable, at its beginning.
        name: What messages call it.

    Yields:
        Samples, and what is in the place of one, in the order of the shard. A sample lacks nothing,
        its text is Unicode and its JSON an object; its image is not looked at.

    Raises:
        DamagedShard: Cut off, or not a tar, or goes on after its end; after the samples before.
    """
    keys: set[str] = set()
    group: _Group | None = None
    for info in _members(file, name):
        if info.isdir() or _META.match(info.name):
            continue
        path = info.name.removeprefix("./")
        match = _NAME.fullmatch(path)
        fault = _name_fault(path)
        if match is None or fault:
            why = fault or "its name has no dot after its key, so that it belongs to no sample"
            yield BadSample(_shown(path), why)
            continue
        key, suffix = match[1], match[2].lower()
        if group is None or group.key != key:
            if group is not None:
                yield group.finish()
            group = _Group(key)
            if key in keys:
                group.fault("a sample of this key came before, and files of others in between")
            keys.add(key)
        group.add(suffix, info, file)
    if group is not None:
        yield group.finish()


class _Group:
    """The files of one key, as they come."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._files: dict[str, bytes] = {}
        self._suffixes: list[str] = []
        self._faults: list[str] = []
        self._more_faults = 0

    def fault(self, told: str) -> None:
        if len(self._faults) < _FAULTS_SHOWN:
            self._faults.append(told)
        else:
            self._more_faults += 1

    def add(self, suffix: str, info: tarfile.TarInfo, file: BinaryIO) -> None:
        """Take a file; `file` is left wherever reading it ends."""
        part = _PARTS.get(suffix)
        if len(self._suffixes) <= _FAULTS_SHOWN:
            self._suffixes.append(_shown(suffix))
        if not info.isreg() or info.issparse():
            self.fault(f"its {_shown(suffix)} is {_kind(info)}, not a plain file")
        elif part is None:
            return
        elif part in self._files:
            self.fault(f"it has more than one {part}")
        elif info.size > _MOST[part]:
            self.fault(f"its {part} may have {_MOST[part]} bytes: found {info.size}")
        else:
            file.seek(info.offset_data)
            self._files[part] = file.read(info.size)

    def finish(self) -> Sample | BadSample:
        missing = [part for part in _MOST if part not in self._files]
        if missing and not self._faults:
            self.fault(f"it lacks {' and '.join(missing)}: found {self._found()}")
        if not self._faults:
            try:
                return self._sample()
            except (TypeError, ValueError, RecursionError) as error:
                self.fault(_shown(str(error)))
        more = f"; and {self._more_faults} more" if self._more_faults else ""
        return BadSample(_shown(self.key), "; ".join(self._faults) + more)

    def _sample(self) -> Sample:
        fields = _JSON.decode(self._files["json"].decode())
        if not isinstance(fields, dict):
            msg = f"its JSON must be an object: found {fields!r:.100}"
            raise TypeError(msg)
        return Sample(self.key, self._files["txt"].decode(), self._files["image"], fields)

    def _found(self) -> str:
        shown, more = self._suffixes[:_FAULTS_SHOWN], len(self._suffixes) > _FAULTS_SHOWN
        told = ", ".join(shown) + (" and more" if more else "")
        dotted = any("." in suffix for suffix in shown)
        return f"{told} (a key ends at the first dot of a name)" if dotted else told


def _members(file: BinaryIO, name: str) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, of which every byte is accounted for.

    The file may be left anywhere between two members.
    """
    end = file.seek(0, SEEK_END)
    file.seek(0)
    bounded: Any = _Bounded(file)  # as much of a file as tarfile needs
    try:
        # The encoding must be the same everywhere, whatever the locale. What is declared of the
        # class lacks `offset`, where the next header lies.
        archive: Any = tarfile.TarFile(fileobj=bounded, encoding="utf-8")
        while (info := archive.next()) is not None:
            archive.members.clear()  # it keeps them all, to be found by name
            fault = _size_fault(info, archive, end)
            if fault:
                raise tarfile.ReadError(fault)
            yield info
        last: int = archive.offset
    # What tarfile raises on hostile input beside its own errors, by reading it and by trial.
    except (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError) as error:
        msg = (
            f"{name} must be a whole tar that is not compressed: {_shown(str(error))}; write or "
            "fetch it again"
        )
        raise DamagedShard(msg) from error
    _check_end(file, last, name)


def _size_fault(info: tarfile.TarInfo, archive: Any, end: int) -> str | None:
    """What is wrong with where a member ends, as `tarfile` understood its headers."""
    if info.size < 0 or archive.offset <= info.offset:
        return f"the file {_shown(info.name)} has a negative size"
    if archive.offset > end:
        return f"it was cut off: {_shown(info.name)} goes on to byte {archive.offset} of {end}"
    if len(archive.pax_headers) > _MAX_GLOBALS:  # copied for each file
        return f"it has more than {_MAX_GLOBALS} global PAX records"
    return None


def _check_end(file: BinaryIO, position: int, name: str) -> None:
    """Hold a shard to end where its members do: an empty block, and nothing after it."""
    file.seek(position)
    found = file.read(_BLOCK)
    fault = None
    if len(found) < _BLOCK:
        fault = "has no end mark: it was cut off, or its writer not closed"
    elif found.strip(b"\0"):
        fault = "has neither a file nor its end there: it is damaged"
    else:
        while rest := file.read(_RECORD):
            if rest.strip(b"\0"):
                fault = "goes on after its end: are these several tars in one file?"
                break
    if fault:
        msg = f"{name}, at byte {position} after its last file, {fault}; write or fetch it again"
        raise DamagedShard(msg)


class _Bounded:
    """What `tarfile` reads headers through: a size it was told is looked at before it is read.

    It reads as many bytes as a header claims, and a negative number is all of the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            msg = f"a header claims to have {size} bytes, of {_MAX_HEADER_BYTES} at most"
            raise tarfile.ReadError(msg)
        data = self._file.read(size)
        if size > _BLOCK or len(data) < size:  # plain headers have short fields
            _refuse_long_numbers(data)
        return data

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


def _refuse_long_numbers(data: bytes) -> None:
    if _LONG_NUMBER.search(data):
        msg = "a header has a number of 100 digits or more"
        raise tarfile.ReadError(msg)


def _name_fault(path: str) -> str | None:
    """What is wrong with a file's name; nothing is ever written where it leads."""
    if len(path) > _LONGEST_NAME:
        return f"its name has {len(path)} characters, of {_LONGEST_NAME} at most"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if _CONTROL.search(path):
        return "its name has a control character or a backslash"
    if {"", ".", ".."} & set(path.split("/")):
        return "its name is no plain path below the shard"
    return None


def _kind(info: tarfile.TarInfo) -> str:
    kinds = {
        "a symbolic link": info.issym(),
        "a hard link": info.islnk(),
        "a device": info.isdev() and not info.isfifo(),
        "a pipe": info.isfifo(),
        "a sparse file": info.issparse(),
    }
    return next((kind for kind, holds in kinds.items() if holds), f"of type {info.type!r}")


def _no_number(constant: str) -> None:
    msg = f"{constant} is no JSON"
    raise ValueError(msg)


_JSON: Final = json.JSONDecoder(parse_constant=_no_number)  # what json.loads makes for each text


def _shown(text: str) -> str:
    """A part of a hostile text, that can be printed and stored."""
    return text[:_SHOWN].encode(errors="backslashreplace").decode()
