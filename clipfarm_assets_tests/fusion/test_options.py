import subprocess
import sys

import pytest
from pydantic import ValidationError

from clipfarm_assets.fusion.options import STRATEGIES, FusionOptions


def test_defaults():
    options = FusionOptions()
    assert options.strategy == "late"
    assert FusionOptions.model_validate_json(options.model_dump_json()) == options
    assert STRATEGIES == ("late", "early", "cross_attention", "gated")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"strategy": "sum"}, "'late', 'early', 'cross_attention' or 'gated'"),
        ({"strategy": "gated", "dim": None}, "'gated' needs all modalities at one width"),
        ({"strategy": "early", "dim": None}, "'early' needs all modalities at one width"),
        ({"strategy": "early", "dim": 10}, "dim must be a multiple of heads: found 10 and 4"),
        ({"strategy": "cross_attention", "dim": 9, "heads": 2}, "found 9 and 2"),
        ({"modality_dropout": 1.0}, "less than 1"),
        ({"hidden": (0,)}, "greater than or equal to 1"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_options(fields, problem):
    with pytest.raises(ValidationError, match=problem):
        FusionOptions(**fields)


def test_heads_are_of_attention_alone():
    assert FusionOptions(strategy="gated", dim=10).dim == 10
    assert FusionOptions(dim=None).dim is None


def test_options_are_read_without_torch():
    program = "import sys, clipfarm_assets.fusion.options; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
