import pytest
import torch

from clipfarm_assets.fusion.learned.modality_dropout import drop_modalities


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def some(rows=5000):
    present = torch.rand(rows, 3) < 0.5
    present[0] = False
    return present


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.999])
def test_only_what_is_present_is_left_and_never_nothing(probability):
    present = some()
    left = drop_modalities(present, probability)
    assert left.dtype == torch.bool
    assert not bool((left & ~present).any())
    assert torch.equal(left.any(dim=1), present.any(dim=1))
    if probability == 0:
        assert torch.equal(left, present)
    else:
        assert not torch.equal(left, present)


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.8])
def test_rate(probability):
    """A modality is left out with p, but for the rows that would have lost all three."""
    left = drop_modalities(torch.ones(40000, 3, dtype=torch.bool), probability)
    expected = probability - probability**3 / 3
    assert (~left).double().mean(dim=0).tolist() == pytest.approx([expected] * 3, abs=0.01)


def test_the_last_one_is_any_of_those_present():
    present = torch.tensor([[True, False, True, True]]).expand(30000, 4)
    left = drop_modalities(present, 0.9999)
    assert left.double().mean(dim=0).tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.01)


def test_rows_have_coins_of_their_own():
    left = drop_modalities(torch.ones(200, 2, dtype=torch.bool), 0.5)
    assert {tuple(row) for row in left.tolist()} == {(True, True), (True, False), (False, True)}


def test_presence_does_not_decide_how_much_is_drawn():
    states = []
    for present in (some(50), torch.zeros(50, 3, dtype=torch.bool)):
        torch.manual_seed(1)
        drop_modalities(present, 0.5)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
