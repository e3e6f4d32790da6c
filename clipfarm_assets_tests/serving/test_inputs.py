"""What a caller hands over in another form is refused in one sentence, or means the same."""

from types import MappingProxyType

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.serving.binding import BindingMismatch
from clipfarm_assets.serving.predictor import load_predictor
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.serving.kit import (
    MODALITIES,
    FileEncoder,
    N,
    clips,
    files,
    given,
    promoted,
)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    store = ObjectStore.open(str(tmp_path_factory.mktemp("store")))
    promoted(store, versions={m: FileEncoder(m).version.id for m in MODALITIES})
    return load_predictor(store, 7)


@pytest.fixture
def what(predictor):
    return given() | {"versions": dict(predictor.binding.embedding_versions)}


@pytest.mark.parametrize("form", [list, tuple, np.array, pl.Series, lambda m: list(np.array(m))])
def test_a_mask_may_be_any_sequence_of_truth_values(predictor, what, form):
    expected = predictor.predict(**what)
    mask = form(what["text_present"].tolist())
    found = predictor.predict(**what | {"text_present": mask})
    assert found.log.tobytes() == expected.log.tobytes()
    assert found.text_present.dtype == np.bool_
    assert found.text_present.tolist() == what["text_present"].tolist()


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        ([1] * N, rf"int64 \({N},\)"),
        (np.ones(N, np.int64), rf"int64 \({N},\)"),
        (np.ones(N, np.float32), rf"float32 \({N},\)"),
        (["True"] * N, rf"<U4 \({N},\)"),
        ([True] * (N - 1) + [None], rf"object \({N},\)"),
        (np.ones(N - 1, np.bool_), rf"bool \({N - 1},\)"),
        (np.ones((N, 1), np.bool_), rf"bool \({N}, 1\)"),
        ([[True], [True, False]], r"object \(2,\)"),
        ([], r"float64 \(0,\)"),
        (True, r"bool \(\)"),
        (None, r"object \(\)"),
    ],
)
def test_a_mask_of_another_form_is_refused(predictor, what, mask, found):
    told = rf"^text_present must be bool \({N},\), one a row: found {found}; give a list of True"
    with pytest.raises(ValueError, match=told):
        predictor.predict(**what | {"text_present": mask})


def test_rows_may_be_any_sequence_of_mappings(predictor, what):
    expected = predictor.predict(**what)
    rows = what["rows"].to_dicts()
    for form in (rows, tuple(rows), [MappingProxyType(row) for row in rows]):
        assert predictor.predict(**what | {"rows": form}).log.tobytes() == expected.log.tobytes()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            clips()[1].row(0, named=True),
            "expected a sequence of rows, found one row: put it in a l",
        ),
        (MappingProxyType({}), "expected a sequence of rows, found one row"),
        ("video_id", "expected a sequence of rows or a polars DataFrame, found str"),
        (None, "expected a sequence of rows or a polars DataFrame, found NoneType"),
        (iter(clips()[1].to_dicts()), "expected a sequence of rows or a .*, found list_iterator"),
        (clips()[1].lazy(), "expected a sequence of rows or a polars DataFrame, found LazyFrame"),
        (
            [*clips()[1].to_dicts()[2:], "row", None],
            rf"found str as row {N - 2} \(2 of {N} rows\)",
        ),
        (clips()[1].rows(), rf"found tuple as row 0 \({N} of {N} rows\)"),
    ],
)
def test_rows_of_another_form_are_refused(predictor, what, rows, told):
    with pytest.raises(TypeError, match=told) as refused:
        predictor.predict(**what | {"rows": rows})
    assert "\n" not in str(refused.value)


def test_a_csv_that_was_read_with_inferred_types_is_refused_with_how_to_read_it(
    predictor, what, tmp_path
):
    path = tmp_path / "rows.csv"
    what["rows"].with_columns(title_length=pl.lit("7")).write_csv(path)
    told = (
        r"found other values in duration_seconds \(Float64\), title_length \(Int64\): read the "
        r"file with pl\.read_csv\(\.\.\., infer_schema=False\)"
    )
    with pytest.raises(BindingMismatch, match=told):
        predictor.predict(**what | {"rows": pl.read_csv(path)})
    what["rows"].write_csv(path)
    read = pl.read_csv(path, infer_schema=False)
    found = predictor.predict(**what | {"rows": read})
    assert found.log.tobytes() == predictor.predict(**what).log.tobytes()


def test_values_of_rows_that_are_no_text_are_named(predictor, what):
    rows = what["rows"].to_dicts()
    rows[3] = rows[3] | {"title_length": 5}
    told = "found other values in title_length: give them as they are written there"
    with pytest.raises(BindingMismatch, match=told):
        predictor.predict(**what | {"rows": rows})


@pytest.mark.parametrize("name", ["vidoe", "Video", "fused", ""])
def test_what_names_no_modality_is_refused(predictor, what, name):
    told = f"of video, audio, text, found unknown modality {name!r}"
    with pytest.raises(BindingMismatch, match=f"expected embedding versions {told}"):
        predictor.predict(**what | {"versions": {**what["versions"], name: "v"}})
    with pytest.raises(BindingMismatch, match=f"expected vectors {told}"):
        predictor.predict(**what | {"vectors": {**what["vectors"], name: np.ones((N, 6))}})


def test_text_vectors_under_another_name_are_not_passed_over(predictor, what):
    """Also where no clip is said to have text, and none would be missed."""
    vectors = {m: what["vectors"][m] for m in ("video", "audio")} | {"txt": what["vectors"]["text"]}
    without = {"vectors": vectors, "text_present": [False] * N}
    with pytest.raises(BindingMismatch, match="found unknown modality 'txt'"):
        predictor.predict(**what | without)


@pytest.fixture
def clip():
    return files(int(np.flatnonzero(clips()[0].clips.text_present)[0]))


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_file_is_bytes_or_a_path_and_a_path_may_be_text(predictor, clip, tmp_path, modality):
    expected = predictor.predict_files(**clip)
    path = tmp_path / "a file"
    path.write_bytes(clip[modality])
    for file in (path, str(path)):
        found = predictor.predict_files(**clip | {modality: file})
        assert found.log.tobytes() == expected.log.tobytes()
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        predictor.predict_files(**clip | {modality: str(tmp_path / "elsewhere")})


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("wrong", [5, {"segments": []}, ["a.mp4"], bytearray(b"x"), np.ones(3)])
def test_a_file_of_another_form_is_refused_before_an_encoder_is_opened(
    predictor, clip, modality, wrong
):
    told = f"expected {modality} as a file's bytes or its path, found {type(wrong).__name__}$"
    opened = []
    with pytest.raises(TypeError, match=told):
        predictor.predict_files(**clip | {modality: wrong, "open_encoder": opened.append})
    assert not opened


def test_the_row_of_a_clip_is_one_row(predictor, clip):
    with pytest.raises(TypeError, match="found list as row 0"):
        predictor.predict_files(**clip | {"metadata": [clip["metadata"]]})
