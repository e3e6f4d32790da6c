"""The hard cases among generated memes, and what must become of each.

`EDGE_CASES` drives the sample, the tests and the table that the demo prints. Nothing is dropped in
silence: a line that is no row, a picture that can't be read, a label that nobody knows are all
reported with a word for it, and what can be used is used.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from PIL import Image

from clipfarm_assets.demo.memes import pictures
from clipfarm_assets.demo.memes.plan import Meme


@dataclass(frozen=True, slots=True)
class Expected:
    """What must become of a case.

    Attributes:
        problems: Words for what must be reported about it, and nothing else.
        in_shards: Whether it is a sample in the end.
        with_first: Whether it must be in the group of the set's first meme.
        changes: What must be counted as done to its picture.
        unused_images: Its pictures that no row names.
    """

    problems: frozenset[str] = frozenset()
    in_shards: bool = True
    with_first: bool = False
    changes: tuple[str, ...] = ()
    unused_images: int = 0


@dataclass(frozen=True, slots=True)
class Material:
    """What a case is made of: an ordinary meme, and the first one of the set.

    Attributes:
        meme: With an id and an image of the case's own.
        moods: Of its caption and of its picture.
        picture: Its picture.
        first: The set's first meme, with both moods 0.
        first_picture: The picture of that.
    """

    meme: Meme
    moods: tuple[int, int]
    picture: Image.Image
    first: Meme
    first_picture: Image.Image


@dataclass(frozen=True, slots=True)
class Files:
    """What a case puts into the store.

    Attributes:
        lines: Of the manifest.
        ocr: Lines of the other file.
        images: Path -> bytes.
    """

    lines: tuple[bytes, ...]
    ocr: tuple[bytes, ...] = ()
    images: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EdgeCase:
    """One hard case.

    Attributes:
        name: One word for it.
        meme_id: The id in its lines; empty if they have none.
        description: What is hard, for people.
        expected: What must become of it.
        make: Its files.
    """

    name: str
    meme_id: str
    description: str
    expected: Expected
    make: Callable[[Material], Files]


def line_of(meme: Meme, **changes: Any) -> bytes:
    """A meme's line in the manifest; a change to None leaves the field out."""
    fields = {
        "id": meme.id,
        "image": meme.image,
        "caption": meme.caption,
        "labels": {"abuse_hate": meme.label},
        "source": "generated",
        **changes,
    }
    told = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(told, ensure_ascii=False).encode()


def ocr_of(meme: Meme) -> bytes:
    """A meme's line in the file of OCR."""
    return json.dumps({"id": meme.id, "ocr": meme.ocr}).encode()


def _plain(material: Material, image: bytes | None = None, **changes: Any) -> Files:
    """The ordinary files of a meme, with another picture or other fields."""
    meme = material.meme
    data = pictures.encoded(material.picture, "PNG") if image is None else image
    return Files((line_of(meme, **changes),), (ocr_of(meme),), {meme.image: data})


def _truncated(material: Material) -> Files:
    data = pictures.encoded(material.picture, "PNG")
    return _plain(material, data[: len(data) // 2])


def _not_an_image(material: Material) -> Files:
    return _plain(material, b"<!doctype html><title>404</title>")


def _bomb(material: Material) -> Files:
    return _plain(material, pictures.bomb())


def _missing_image(material: Material) -> Files:
    return replace(_plain(material), images={})


def _no_image_field(material: Material) -> Files:
    return Files((line_of(material.meme, image=None),), (ocr_of(material.meme),))


def _image_outside(material: Material) -> Files:
    line = line_of(material.meme, image="../../secrets/picture.png")
    return Files((line,), (ocr_of(material.meme),))


def _flat(material: Material) -> Files:
    return _plain(material, pictures.flat())


def _turned(material: Material) -> Files:
    return _plain(material, pictures.turned(material.picture))


def _animated(material: Material) -> Files:
    return _plain(material, pictures.animated(material.picture))


def _transparent(material: Material) -> Files:
    return _plain(material, pictures.transparent(material.picture))


def _wide(material: Material) -> Files:
    return _plain(material, pictures.wide(material.picture))


def _recompressed(material: Material) -> Files:
    small = material.first_picture.resize((80, 80), Image.Resampling.BICUBIC)
    image = pictures.encoded(small, "JPEG", quality=60)
    return _plain(material, image, labels={"abuse_hate": material.moods[0]})


def _same_words(material: Material) -> Files:
    caption = f"«{material.first.caption.upper()}»!!"
    return _plain(material, caption=caption, labels={"abuse_hate": material.moods[1]})


def _as_hateful_memes(material: Material) -> Files:
    meme = material.meme
    fields = {"id": int(meme.id), "img": meme.image, "text": meme.caption, "label": meme.label}
    image = pictures.encoded(material.picture, "PNG")
    return Files((json.dumps(fields).encode(),), (), {meme.image: image})


def _unknown_label(material: Material) -> Files:
    return _plain(material, labels={"abuse_hate": material.meme.label, "sarcasm": 1})


def _bad_label(material: Material) -> Files:
    return _plain(material, labels={"abuse_hate": "perhaps"})


def _two_labels(material: Material) -> Files:
    return _plain(material, labels={"abuse_hate": 0}, label=1)


def _unlabelled(material: Material) -> Files:
    return _plain(material, labels={})


def _twice(material: Material) -> Files:
    made = _plain(material)
    again = line_of(material.meme, caption="the second line of this id")
    return replace(made, lines=(*made.lines, again))


def _no_ocr(material: Material) -> Files:
    return replace(_plain(material), ocr=())


def _no_text(material: Material) -> Files:
    return replace(_plain(material, caption="  ", labels={}), ocr=())


def _bad_json(material: Material) -> Files:
    return Files((line_of(material.meme)[:-20],))


def _missing_id(material: Material) -> Files:
    return Files((line_of(material.meme, id=None),))


def _ocr_without_row(material: Material) -> Files:
    return Files((), (ocr_of(material.meme),))


def _unused_image(material: Material) -> Files:
    return Files((), (), {material.meme.image: pictures.encoded(material.picture, "PNG")})


def _plain_files(material: Material) -> Files:
    return _plain(material)


def _case(
    name: str,
    description: str,
    make: Callable[[Material], Files],
    *problems: str,
    meme_id: str | None = None,
    **expected: Any,
) -> EdgeCase:
    told = Expected(frozenset(problems), **expected)
    own = f"edge-{name.replace('_', '-')}"
    return EdgeCase(name, own if meme_id is None else meme_id, description, told, make)


EDGE_CASES: Final[tuple[EdgeCase, ...]] = (
    # Pictures
    _case("truncated", "a PNG cut off in the middle", _truncated, "image_corrupt", in_shards=False),
    _case("not_an_image", "a web page, named png", _not_an_image, "image_corrupt", in_shards=False),
    _case(
        "bomb",
        "a PNG of a hundred bytes that claims 10^10 pixels",
        _bomb,
        "image_corrupt",
        in_shards=False,
    ),
    _case("missing_image", "no picture", _missing_image, "image_not_found", in_shards=False),
    _case("flat", "a picture of one colour: like no other", _flat, "image_flat"),
    _case("turned", "its EXIF turns the picture", _turned, changes=("turned",)),
    _case("animated", "a GIF of two frames", _animated, changes=("first_frame", "palette")),
    _case("transparent", "a PNG one sees through", _transparent, changes=("transparent",)),
    _case("wide", "a side longer than 1024 pixels", _wide, changes=("shrunk",)),
    _case(
        "recompressed",
        "the first meme's picture, smaller and as JPEG, under other words",
        _recompressed,
        with_first=True,
    ),
    _case(
        "unused_image",
        "a picture that no line names",
        _unused_image,
        in_shards=False,
        meme_id="",
        unused_images=1,
    ),
    # Rows
    _case(
        "dotted_id",
        "an id with dots, which WebDataset would cut",
        _plain_files,
        "dotted_id",
        meme_id="edge.dotted.id",
    ),
    _case(
        "as_hateful_memes",
        "fields as Hateful Memes names them; the id is a number; no OCR",
        _as_hateful_memes,
        meme_id="90421",
    ),
    _case("duplicate_id", "two lines of one id: the first counts", _twice, "duplicate_id"),
    _case("bad_json", "a line cut off", _bad_json, "bad_json", meme_id="", in_shards=False),
    _case(
        "missing_id", "a line without id", _missing_id, "missing_id", meme_id="", in_shards=False
    ),
    _case(
        "no_image_field", "a line without image", _no_image_field, "missing_image", in_shards=False
    ),
    _case(
        "image_outside",
        "an image path that leads out of the folder",
        _image_outside,
        "bad_image_path",
        in_shards=False,
    ),
    # Labels
    _case(
        "unknown_label", "a label that no taxonomy has, beside one", _unknown_label, "unknown_label"
    ),
    _case("bad_label", "a class that the label has not", _bad_label, "bad_label", "unlabelled"),
    _case("two_labels", "two classes of one label", _two_labels, "bad_label", "unlabelled"),
    _case("unlabelled", "no label", _unlabelled, "unlabelled"),
    # Words
    _case(
        "same_words",
        "the first meme's caption in capitals, on another picture",
        _same_words,
        with_first=True,
    ),
    _case("no_ocr", "no words on the picture", _no_ocr),
    _case("no_text", "no words at all, and no label", _no_text, "no_text", "unlabelled"),
    _case(
        "ocr_without_row",
        "OCR of an id that no line has",
        _ocr_without_row,
        "ocr_without_row",
        in_shards=False,
    ),
)


def expected_changes() -> dict[str, int]:
    """What must be counted as done to pictures, in all."""
    return dict(Counter(change for case in EDGE_CASES for change in case.expected.changes))
