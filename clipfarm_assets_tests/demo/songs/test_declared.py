"""What the demo declares of a comparison goes by the deployment's bounds and the test split."""

from clipfarm_assets.demo.songs.declared import of_comparison
from clipfarm_assets.pipelines.songs.comparison_files import WITH_DROPOUT, WITHOUT_DROPOUT


def declared(lost, bound):
    """What is declared -> how it is, of what strategies lose without words."""
    degradation = {
        name: {
            WITH_DROPOUT: {"text": {"macro_f1": 0.75 - one, "lost": one}},
            WITHOUT_DROPOUT: {"text": {"macro_f1": 0.0, "lost": 0.75}},
        }
        for name, one in zip(("late", "early"), lost, strict=True)
    }
    judged = {"verdicts": {}, "degradation": degradation}
    # The bound that the comparison's run was told of is not what counts.
    found = {"decided_on": "test", "splits": {"test": judged}, "settings": {"most_degradation": 1}}
    return {each.what: each for each in of_comparison(found, {"text": bound})}


def test_the_bound_is_the_deployments():
    assert declared((0.1, 0.25), bound=0.3)["early without a modality"].holds
    found = declared((0.1, 0.25), bound=0.2)
    assert not found["early without a modality"].holds
    assert found["late without a modality"].holds


def test_what_is_lost_is_told_beside_its_bound():
    found = declared((0.1, 0.25), bound=0.2)["early without a modality"]
    assert (found.found, "0.2 without text" in found.expected) == ("0.250", True)


def verdict(wins):
    return {
        "best_unimodal": "text",
        "fusion": 0.9,
        "unimodal": 0.8,
        "difference": {"low": 0.05},
        "fusion_wins": wins,
    }


def test_every_strategy_has_to_win_on_what_is_decided_on():
    splits = {
        "test": {"verdicts": {"late": verdict(True), "gated": verdict(False)}, "degradation": {}},
        "val": {"verdicts": {"late": verdict(False), "gated": verdict(True)}, "degradation": {}},
    }
    found = list(of_comparison({"decided_on": "test", "splits": splits}, {}))
    assert [(each.what, each.holds) for each in found] == [
        ("late against text alone", True),
        ("gated against text alone", False),
    ]
    assert "lower bound +0.050" in found[0].found
