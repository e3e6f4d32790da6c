"""One modality alone: it sees nothing of the others, and rows without it are there, too."""

import torch

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.training.songs.model import SongModel
from clipfarm_assets.training.songs.single import OneModality
from clipfarm_assets_tests.training.songs import kit


def test_batches_hold_the_one_modality_and_all_rows():
    whole = kit.batches(50)
    for column, modality in enumerate(MODALITIES):
        one = OneModality(whole, modality, column)
        assert (one.rows, one.batch_size) == (50, 32)
        seen = list(one.epoch(torch.Generator()))
        given = list(whole.epoch(torch.Generator()))
        for (inputs, target), (full, expected) in zip(seen, given, strict=True):
            assert torch.equal(target, expected)
            assert torch.equal(inputs["present"], full["present"][:, [column]])
            names = {key.partition(".")[0] for key in inputs}
            assert names == {"present", modality}
        assert one.identity() == f"{whole.identity()}, {modality} alone"


def test_a_network_of_one_modality_has_nothing_that_only_several_can_have():
    for modality in MODALITIES:
        model = SongModel.build(f"single:{modality}", kit.config(), kit.CLASSES)
        assert model.network.modalities == (modality,)
        assert model.network.modality_dropout == 0
        assert not model.network.unimodal
        assert model.config.model.fusion.strategy == "late"
        one = OneModality(kit.batches(8), modality, kit.alone(modality))
        ((inputs, _),) = one.epoch(torch.Generator())
        assert model.network(**inputs).shape == (8, len(kit.CLASSES))


def test_rows_without_the_modality_all_say_the_same():
    network = SongModel.build("single:midi", kit.config(), kit.CLASSES).network.eval()
    one = OneModality(kit.batches(20), "midi", kit.alone("midi"))
    ((inputs, _),) = one.epoch(torch.Generator())
    with torch.inference_mode():
        absent = network(**inputs)[~inputs["present"][:, 0]]
    assert len(absent) > 1
    assert torch.equal(absent, absent[:1].expand_as(absent))
