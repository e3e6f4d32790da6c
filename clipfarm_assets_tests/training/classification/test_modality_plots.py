"""The same numbers give the same picture; every case a comparison can have can be drawn."""

import io

import pytest
from PIL import Image

from clipfarm_assets.training.classification import modality_plots

SCORES = {"none": 0.2, "text": 0.5, "text+audio": None, "text+audio+midi": 0.9}
LOST = {"as trained": {"text": 0.1, "midi": -0.01}, "without": {"text": 0.3, "midi": 0.0}}
NORMS = {"text": [1.0, 0.5], "midi": [0.0, 0.0], "shared": [2.0, 1.0]}
BOUNDS = {"text": 0.2, "midi": 0.1}

DRAWN = {
    "subsets": lambda: modality_plots.subsets_png({"late": SCORES, "gated": SCORES}, "a title"),
    "no subsets": lambda: modality_plots.subsets_png({}),
    "shares": lambda: modality_plots.shares_png({"late": {"text": 0.3, "midi": -0.1}}),
    "degradation": lambda: modality_plots.degradation_png({"late": LOST, "early": LOST}, BOUNDS),
    "one kind": lambda: modality_plots.degradation_png({"late": {"k": {"text": 0.1}}}, BOUNDS),
    "gradients": lambda: modality_plots.gradients_png({"late": NORMS}),
    "no gradients": lambda: modality_plots.gradients_png({"late": {"text": [0.0]}}),
    "no models": lambda: modality_plots.gradients_png({}),
}


@pytest.mark.parametrize("case", DRAWN)
def test_every_case_can_be_drawn(case):
    data = DRAWN[case]()
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert min(image.size) > 40


def test_the_same_numbers_give_the_same_bytes_and_others_other_ones():
    assert DRAWN["degradation"]() == DRAWN["degradation"]()
    other = {"late": {**LOST, "without": {"text": 0.2, "midi": 0.0}}, "early": LOST}
    assert modality_plots.degradation_png(other, BOUNDS) != DRAWN["degradation"]()


def test_a_modality_has_a_bound_of_its_own():
    moved = {**BOUNDS, "midi": 0.2}
    drawn = modality_plots.degradation_png({"late": LOST, "early": LOST}, moved)
    assert drawn != DRAWN["degradation"]()
