"""What a row's inputs look like, and what it is filled up with."""

import numpy as np
import pytest

from clipfarm_assets.training.song_config import song_config
from clipfarm_assets.training.song_items import ArraySpec, SegmentItem, filled, input_specs


def specs_of(text="precomputed", audio="cnn", midi="piano_roll", **changes):
    return input_specs(
        song_config(
            {
                "model": {
                    "text_encoder": {"type": text},
                    "audio_encoder": {"type": audio, **changes},
                    "midi_encoder": {"type": midi},
                },
                "preprocessing": {
                    "audio": {"seconds": 2.0, "sample_rate": 48_000 if audio == "clap" else 16_000}
                },
            }
        ),
        stored_tokens=3,
    )


def test_inputs_follow_from_the_encoders():
    usual = specs_of()
    assert usual["text"] == {"values": ArraySpec((768,), "float32")}
    assert usual["audio"] == {"mel": ArraySpec((64, 63), "float32")}
    assert usual["midi"] == {"roll": ArraySpec((3, 88, 40), "float32")}
    assert set(specs_of(text="deberta")["text"]) == {"input_ids", "attention_mask"}
    assert specs_of(audio="wav2vec2")["audio"] == {"samples": ArraySpec((32_000,), "float32")}
    assert specs_of(audio="clap")["audio"] == {"samples": ArraySpec((96_000,), "float32")}
    stored = specs_of(audio="clap", precomputed=True)["audio"]
    assert stored == {"values": ArraySpec((3, 512), "float32")}
    assert set(specs_of(midi="event_based")["midi"]) == {"tokens", "mask"}
    with_bars = specs_of(midi="music_transformer")["midi"]
    assert with_bars["bars"] == with_bars["tokens"] == ArraySpec((512,), "int64")
    assert with_bars["mask"] == ArraySpec((512,), "bool")


def test_rows_are_filled_up_with_zeros_to_one_shape():
    specs = {"tokens": ArraySpec((4,), "int64"), "mask": ArraySpec((4,), "bool")}
    full = filled({"tokens": np.array([5, 6]), "mask": np.array([True, True])}, specs)
    assert full["tokens"].tolist() == [5, 6, 0, 0]
    assert full["mask"].tolist() == [True, True, False, False]
    empty = filled(None, specs)
    assert {name: (array.dtype, array.any()) for name, array in empty.items()} == {
        "tokens": (np.dtype("int64"), False), "mask": (np.dtype("bool"), False),
    }  # fmt: skip


@pytest.mark.parametrize("arrays", [{}, {"a": np.zeros((5, 2))}, {"a": np.zeros((3, 1))}])
def test_rows_of_another_shape_are_refused_and_never_cut(arrays):
    with pytest.raises(ValueError, match=r"expected a of shape \[4, 2\] or shorter: found"):
        filled(arrays, {"a": ArraySpec((4, 2), "float32")})


def test_an_item_knows_what_it_has_and_what_it_takes():
    item = SegmentItem("s", {"text": None, "audio": {"mel": np.zeros(10, np.float32)},
                             "midi": {"tokens": np.zeros(3, np.int64)}}, 1)  # fmt: skip
    assert item.present == (False, True, True)
    assert item.nbytes == 64
