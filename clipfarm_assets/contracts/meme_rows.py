"""Rows of memes out of two files of JSON lines, and everything that is wrong with them.

The manifest has one object a line::

    {"id": "a1", "image": "a1.png", "caption": "…", "labels": {"abuse_hate": 1}, "source": "…"}

or, as Hateful Memes writes it, ``{"id": 42953, "img": "42953.png", "text": "…", "label": 1}``. The
second file holds the words read off the images: ``{"id": "42953", "ocr": "…"}`` or with ``text``.
A line that is no row is left out, and what of a row is not understood is not used: each with a
`RowProblem`. Fields of other names are nobody's and stay unread.
"""

import codecs
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from clipfarm_assets.contracts.grouped_splits import SPLITS, Split
from clipfarm_assets.contracts.label_taxonomy import DEFAULT_LABEL, LabelTaxonomy
from clipfarm_assets.storage.keys import check_key

__all__ = [
    "DEFAULT_LABEL",
    "LEFT_OUT",
    "NOTES",
    "SPLITS",
    "MemeRow",
    "RowProblem",
    "Split",
    "read_rows",
    "sample_key",
]

LEFT_OUT: Final = frozenset(
    {
        "bad_json", "missing_id", "bad_id", "duplicate_id", "missing_image", "bad_image_path",
        "bad_field",
    }
)  # fmt: skip
"""Problems for which a line is no row."""

NOTES: Final = frozenset({"dotted_id", "unlabelled", "no_text"})
"""What is said of rows that are as they may be."""

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_-]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_ID: Final = 256
_LONGEST_PATH: Final = 256
_HASH_DIGITS: Final = 16
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class MemeRow:
    """One meme.

    Attributes:
        id: As the manifest has it, numbers as text.
        key: Its name in shards; see `sample_key`.
        image: Path below the folder of images.
        caption: What the manifest says in words; may be empty.
        ocr: What the image says in words; may be empty.
        labels: Label -> number of the class; labels that nobody gave are not there.
        source: The data set it is from; may be empty.
    """

    id: str
    key: str
    image: str
    caption: str
    ocr: str
    labels: Mapping[str, int]
    source: str

    @property
    def text(self) -> str:
        """OCR, newline, caption; empty parts left out."""
        return "\n".join(part for part in (self.ocr, self.caption) if part)


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Something about a line that a person should know.

    Attributes:
        kind: One word for it: one of `LEFT_OUT`, of `NOTES`, or another, where a part of the row
            is not used.
        where: File and line, and the id if there is one.
        detail: What was expected and found.
    """

    kind: str
    where: str
    detail: str

    @property
    def leaves_out(self) -> bool:
        """Whether the line is no row because of it."""
        return self.kind in LEFT_OUT


def sample_key(meme_id: str) -> str:
    """The name of a meme's files in a shard: 1 to 64 of ``A-Z a-z 0-9 _ -``.

    WebDataset takes what follows the first dot of a name for the field's, so that "1.2" would be
    the field "2.png" of sample "1". Such ids, and others that no file should be named by, have the
    characters in question replaced and a hash of the whole appended: different ids stay different.
    """
    if _KEY.fullmatch(meme_id):
        return meme_id
    digest = hashlib.sha256(meme_id.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{_FOREIGN.sub('_', meme_id)[: 63 - _HASH_DIGITS]}-{digest}"


def read_rows(
    manifest: bytes, ocr: bytes | None, taxonomy: LabelTaxonomy
) -> tuple[list[MemeRow], list[RowProblem]]:
    """Read the rows, in the order of the manifest.

    Of lines with one id the first that is a row stays. A label is used if the taxonomy knows it and
    its class; where a row says two classes of one label, neither is.

    Args:
        manifest: The file's bytes.
        ocr: The other file's; None if there is none.
        taxonomy: The labels there are.

    Returns:
        Rows with different ids and keys; and the problems, first those of the manifest.
    """
    words, ocr_problems = _read_ocr(ocr or b"")
    reader = _Reader(taxonomy, words)
    rows = list(reader.rows(manifest))
    strays = [
        RowProblem("ocr_without_row", said.where, "expected a row of this id in the manifest")
        for meme_id, said in words.items()
        if meme_id not in reader.ids
    ]
    return rows, [*reader.problems, *ocr_problems, *strays]


class _Reader:
    """Reads the manifest's lines, and keeps what is wrong with them."""

    def __init__(self, taxonomy: LabelTaxonomy, words: Mapping[str, "_Words"]) -> None:
        self._taxonomy = taxonomy
        self._words = words
        self._id_of_key: dict[str, str] = {}
        self.problems: list[RowProblem] = []
        self.ids: set[str] = set()

    def rows(self, manifest: bytes) -> Iterator[MemeRow]:
        for where, found in _lines(manifest, "manifest"):
            try:
                yield self._row(where, _object(where, found))
            except _NoRow as error:
                self.problems.append(error.problem)

    def _row(self, where: str, body: Mapping[str, Any]) -> MemeRow:
        meme_id = _id(where, body)
        self.ids.add(meme_id)
        where = f"{where}, id {meme_id}"
        key = sample_key(meme_id)
        taken = self._id_of_key.get(key)
        if taken == meme_id:
            raise _NoRow("duplicate_id", where, "an earlier line has this id; that one is used")
        if taken is not None:
            raise _NoRow("duplicate_id", where, f"its key {key} is that of the earlier id {taken}")
        image, caption = _image(where, body), _text(where, body, "caption", "text")
        source = _text(where, body, "source")
        self._id_of_key[key] = meme_id
        if key != meme_id:
            self._note("dotted_id", where, f"its files in shards are named {key}")
        labels = self._labels(where, body)
        if not labels:
            self._note("unlabelled", where, "it has no label that can be used")
        words = self._words.get(meme_id)
        row = MemeRow(meme_id, key, image, caption, words.text if words else "", labels, source)
        if not row.text:
            self._note("no_text", where, "it has neither caption nor OCR")
        return row

    def _labels(self, where: str, body: Mapping[str, Any]) -> dict[str, int]:
        """The labels of a row that can be used, sorted by name."""
        given = body.get("labels")
        if given is not None and not isinstance(given, dict):
            self._note("bad_label", where, f"labels must be an object: found {_shown(given)}")
            given = None
        pairs = [*(given or {}).items(), *([("label", body["label"])] if "label" in body else [])]
        said: dict[str, set[int]] = {}
        for name, value in pairs:
            label = self._taxonomy.resolve(name)
            if label is None:
                there = ", ".join(sorted(self._taxonomy.labels))
                self._note("unknown_label", where, f"expected {there}: found {_shown(name)}")
            elif value is not None:  # null: nobody gave it
                number = self._taxonomy.class_of(label, value)
                if number is None:
                    classes = ", ".join(self._taxonomy.labels[label])
                    detail = f"{label} must be the number or name of a class, of {classes}"
                    self._note("bad_label", where, f"{detail}: found {_shown(value)}")
                else:
                    said.setdefault(label, set()).add(number)
        for label, numbers in said.items():
            if len(numbers) > 1:
                self._note("bad_label", where, f"{label} is given the classes {sorted(numbers)}")
        return {label: next(iter(n)) for label, n in sorted(said.items()) if len(n) == 1}

    def _note(self, kind: str, where: str, detail: str) -> None:
        self.problems.append(RowProblem(kind, where, detail))


class _NoRow(Exception):  # noqa: N818 - what a line turns out to be, told by its problem
    def __init__(self, kind: str, where: str, detail: str) -> None:
        super().__init__(kind)
        self.problem = RowProblem(kind, where, detail)


@dataclass(frozen=True, slots=True)
class _Words:
    """What the second file says of an id, and where."""

    text: str
    where: str


def _read_ocr(ocr: bytes) -> tuple[dict[str, _Words], list[RowProblem]]:
    """Id -> its words, and what is wrong; of lines with one id the first stays."""
    words: dict[str, _Words] = {}
    problems: list[RowProblem] = []
    for where, found in _lines(ocr, "ocr"):
        try:
            body = _object(where, found)
            meme_id = _id(where, body)
            place = f"{where}, id {meme_id}"
            if meme_id in words:
                detail = "an earlier line has this id; that one is used"
                raise _NoRow("duplicate_id", place, detail)  # noqa: TRY301 - as the others here
            words[meme_id] = _Words(_text(place, body, "ocr", "text"), place)
        except _NoRow as error:
            told = error.problem
            problems.append(RowProblem(f"ocr_{told.kind}", told.where, told.detail))
    return words, problems


def _lines(data: bytes, file: str) -> Iterator[tuple[str, bytes]]:
    """Where and what: every line that isn't blank."""
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if line.strip():
            yield f"{file} line {number}", line


def _object(where: str, line: bytes) -> dict[str, Any]:
    try:
        body = json.loads(line.decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # also of the decoding
        raise _NoRow("bad_json", where, str(error)[:_SHOWN]) from None
    if not isinstance(body, dict):
        raise _NoRow("bad_json", where, f"expected an object: found {_shown(body)}")
    return body


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; JSON leaves open which value counts where a name is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        msg = f"the object has the name {_shown(twice)} more than once"
        raise ValueError(msg)
    return found


def _id(where: str, body: Mapping[str, Any]) -> str:
    found = body.get("id")
    if found is None or found == "":
        raise _NoRow("missing_id", where, f"expected an id: found the names {_shown([*body])}")
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if (
        not isinstance(found, str)
        or len(found) > _LONGEST_ID
        or found != found.strip()
        or _CONTROL.search(found)
        or not _is_unicode(found)
    ):
        detail = (
            f"an id is a whole number, or text of up to {_LONGEST_ID} characters that neither "
            f"begins nor ends in a space: found {_shown(found)}"
        )
        raise _NoRow("bad_id", where, detail)
    return found


def _image(where: str, body: Mapping[str, Any]) -> str:
    """The path, below the folder of images."""
    found = body.get("image")
    found = body.get("img") if found is None else found
    if found is None or found == "":
        detail = f"expected image or img: found the names {_shown([*body])}"
        raise _NoRow("missing_image", where, detail)
    if not isinstance(found, str):
        raise _NoRow("bad_image_path", where, f"expected a path: found {_shown(found)}")
    path = found.removeprefix("./")
    if len(path) > _LONGEST_PATH:
        detail = f"expected a path of up to {_LONGEST_PATH} characters: found {len(path)}"
        raise _NoRow("bad_image_path", where, detail)
    try:
        return check_key(path)
    except ValueError as error:
        raise _NoRow("bad_image_path", where, str(error)[:_SHOWN]) from None


def _text(where: str, body: Mapping[str, Any], *names: str) -> str:
    """The first field of these names that is there, without blanks around it."""
    name, found = next(((n, body[n]) for n in names if body.get(n) is not None), ("", ""))
    if not isinstance(found, str):
        raise _NoRow("bad_field", where, f"{name} must be text: found {_shown(found)}")
    if not _is_unicode(found):
        raise _NoRow("bad_field", where, f"{name} must be Unicode: found half a surrogate pair")
    return found.strip()


def _is_unicode(text: str) -> bool:
    """Whether it can be written: JSON may escape halves of surrogate pairs alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    try:
        return repr(value)[:_SHOWN]
    except RecursionError:
        return f"a {type(value).__name__} nested too deep to be shown"
