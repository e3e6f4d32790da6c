"""Tars of all kinds."""

import io
import tarfile

from clipfarm_assets.storage.tar_shards import Sample, read_shard
from clipfarm_assets_tests.webdataset_oracle import raw_samples

PNG = b"\x89PNG\r\n\x1a\n"
WHOLE = {"txt": b"words", "png": PNG, "json": b'{"labels":{"abuse_hate":1}}'}


def sample(key="a", txt="words", png=PNG + b"pixels", **fields):
    return Sample(key, txt, png, fields or {"labels": {"abuse_hate": 1}})


SOME = [
    sample("b-2", "žluťoučký\nkůň", PNG + bytes(700), labels={"abuse_hate": 0}, z=1, a=[None, "ü"]),
    sample("_a", "", PNG),
    sample("9" * 64, "x" * 512, PNG + b"y" * 504),
]


def info(name, size=0, **fields):
    found = tarfile.TarInfo(name)
    found.size = size
    for field, value in fields.items():
        setattr(found, field, value)
    return found


def tar(*members):
    """A tar of (name, bytes) pairs and of bare TarInfo objects."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                name, data = member
                archive.addfile(info(name, len(data)), io.BytesIO(data))
    return file.getvalue()


def files(key, **parts):
    return [(f"{key}.{suffix}", data) for suffix, data in ({**WHOLE, **parts}).items()]


def headed(name, size_field, type_=b"0", data=b""):
    """A tar that begins with a header of our own making, its checksum right, and a good sample."""
    header = bytearray(info(name, type=type_).tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = size_field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + tar(*files("good"))


def read(data):
    return list(read_shard(io.BytesIO(data), "shard.tar"))


def by_webdataset(path, data):
    path.write_bytes(data)
    return raw_samples(path)
