"""Piano rolls and events to tokens."""

import pytest
import torch

from clipfarm_assets.encoders.midi.piano_roll import piano_roll
from clipfarm_assets.encoders.midi.tokens import MidiLikeSettings, RemiSettings
from clipfarm_assets.training.song_encoder_config import (
    EventBasedMidi,
    MusicTransformerMidi,
    PianoRollMidi,
)
from clipfarm_assets.training.song_encoders.build import build_network, embedding
from clipfarm_assets.training.song_encoders.midi import EventTransformer, PianoRollCnn, sinusoids
from clipfarm_assets_tests.training.song_encoders import kit

CHORD = ((0, 480, 60), (0, 480, 64), (0, 480, 67))
TUNE = ((0, 240, 60), (240, 480, 62), (480, 960, 64))
MIDI_LIKE = MidiLikeSettings().vocabulary().size
REMI = RemiSettings().vocabulary().size


def roll_of(*played):
    score = kit.score_of(*played)
    roll = piano_roll(score, seconds=1.0, frames_per_second=16, pitches=(48, 72))
    return torch.from_numpy(roll).unsqueeze(0)


def rolls(**settings):
    torch.manual_seed(1)
    return PianoRollCnn(24, 8, PianoRollMidi(channels=(4, 8), **settings)).eval()


def event_based():
    torch.manual_seed(1)
    return EventTransformer(MIDI_LIKE, 16, EventBasedMidi(heads=2, layers=1)).eval()


def music_transformer(vocabulary=REMI):
    torch.manual_seed(1)
    config = MusicTransformerMidi(heads=2, layers=1)
    return EventTransformer(vocabulary, 16, config, bar_positions=64).eval()


def test_piano_roll_encoding():
    encoder = rolls(tokens=2)
    batch = torch.cat([roll_of(*CHORD), roll_of(*TUNE)])
    tokens = encoder(roll=batch)
    assert tokens.values.shape == (2, 2, 8)
    assert tokens.mask.all()
    assert not torch.allclose(tokens.values[0], tokens.values[1], atol=1e-3)
    encoder.pooled(roll=batch).square().sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in encoder.parameters())


@torch.inference_mode()
def test_event_based_encoding():
    """Other events, or the same in another order, give other tokens."""
    encoder = event_based()
    rows = [kit.events_of(kit.score_of(*each)) for each in (CHORD, TUNE, TUNE[:2])]
    tokens = encoder(**kit.stacked(*rows))
    assert tokens.mask.sum(dim=1).tolist() == [int(row["mask"].sum()) for row in rows]
    pooled = encoder.pooled(**kit.stacked(*rows))
    assert len(pooled.round(decimals=3).unique(dim=0)) == 3
    turned = {name: each.clone() for name, each in rows[1].items()}
    turned["tokens"][0, :4] = turned["tokens"][0, :4].flip(0)
    assert not torch.allclose(encoder.pooled(**turned)[0], pooled[1], atol=1e-3)


@torch.inference_mode()
def test_music_transformer_encoding():
    """The same events in another bar, or place of a bar, are told apart; not so without bars."""
    events = kit.events_of(kit.score_of(*TUNE))
    later = {**events, "bars": events["bars"] + 1}
    shifted = {**events, "positions": (events["positions"] + 3) % 64}
    aware, unaware = music_transformer(MIDI_LIKE), event_based()
    for changed in (later, shifted):
        assert not torch.allclose(aware.pooled(**events), aware.pooled(**changed), atol=1e-3)
        assert torch.equal(unaware.pooled(**events), unaware.pooled(**changed))
    with pytest.raises(ValueError, match="needs `bars` and `positions`"):
        aware(tokens=events["tokens"], mask=events["mask"])


@pytest.mark.parametrize("kind", ["event_based", "music_transformer"])
def test_midi_events_to_embedding(kind):
    """A tensor [batch, events, features] of token, bar and position becomes [batch, hidden_dim]."""
    config = kit.small_config(midi={"type": kind, "heads": 2, "layers": 1})
    network = build_network(config, 2).eval()
    vocabulary = config.model.midi_encoder.vocabulary
    rows = kit.stacked(*(kit.events_of(kit.score_of(*each), vocabulary) for each in (CHORD, TUNE)))
    features = torch.stack([rows["tokens"], rows["bars"], rows["positions"]], dim=2)
    assert features.shape == (2, kit.MAX_EVENTS, 3)
    tokens, bars, positions = features.unbind(dim=2)
    found = embedding(
        network, "midi", tokens=tokens, mask=rows["mask"], bars=bars, positions=positions
    )
    assert found.shape == (2, config.model.hidden_dim)
    found.square().sum().backward()
    encoder = network.encoders["midi"]
    assert all(each.grad.isfinite().all() for each in encoder.parameters())
    assert encoder.events.weight.grad[0].abs().sum() == 0, "padding teaches nothing"


@pytest.mark.parametrize("make", [event_based, music_transformer])
@torch.inference_mode()
def test_what_is_masked_has_no_influence_bit_for_bit(make):
    encoder = make()
    rows = kit.stacked(*(kit.events_of(kit.score_of(*each), "remi") for each in (CHORD, TUNE)))
    junk = {
        name: torch.where(rows["mask"], each, 7) for name, each in rows.items() if name != "mask"
    }
    clean, dirty = encoder(**rows), encoder(**junk, mask=rows["mask"])
    assert torch.equal(clean.mask, dirty.mask)
    assert torch.equal(clean.values[clean.mask], dirty.values[clean.mask])


@torch.inference_mode()
def test_padding_further_changes_no_more_than_rounding():
    encoder = event_based()
    score = kit.score_of(*TUNE)
    short, long = kit.events_of(score, length=24), kit.events_of(score, length=32)
    torch.testing.assert_close(encoder.pooled(**short), encoder.pooled(**long))


@torch.inference_mode()
def test_a_file_without_notes_has_no_real_token():
    events = kit.events_of(kit.score_of(*TUNE))
    empty = {**events, "mask": torch.zeros_like(events["mask"])}
    tokens = event_based()(**empty)
    assert not tokens.mask.any()
    assert tokens.values.isfinite().all()


@torch.inference_mode()
def test_polyphony_handling():
    """A chord is told from each of its parts, and from its notes one after the other."""
    broken = ((0, 160, 60), (160, 320, 64), (320, 480, 67))
    played = [CHORD, broken, *(CHORD[:n] + CHORD[n + 1 :] for n in range(3))]
    events, bars = event_based(), music_transformer()
    for found in (
        torch.cat([rolls().pooled(roll=roll_of(*each)) for each in played]),
        torch.cat([events.pooled(**kit.events_of(kit.score_of(*each))) for each in played]),
        torch.cat([bars.pooled(**kit.events_of(kit.score_of(*each), "remi")) for each in played]),
    ):
        distances = torch.cdist(found, found) + torch.eye(len(played))
        assert distances.min() > 1e-3


def test_rolls_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected rolls \[B, 3, 24, T\]: found \[1, 3, 88, 4\]"):
        rolls()(roll=torch.zeros(1, 3, 88, 4))


def test_waves_tell_numbers_apart_at_any_width():
    numbers = torch.tensor([[0, 1, 2], [50, 400, 5000]])
    for dim in (1, 7, 8):
        waves = sinusoids(numbers, dim)
        assert waves.shape == (2, 3, dim)
        assert waves.abs().max() <= 1
    assert len(sinusoids(torch.arange(1000), 16).round(decimals=4).unique(dim=0)) == 1000
