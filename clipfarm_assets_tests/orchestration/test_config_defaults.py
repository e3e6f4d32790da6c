"""Environment variables as defaults of run configuration."""

from typing import Literal

import dagster as dg
import pytest
from pydantic import Field, ValidationError

from clipfarm_assets.orchestration.config_defaults import defaults_from

VARIABLE = "CLIPFARM_THING_CONFIG"


class Thing(dg.Config):
    """A thing."""

    frames: int = Field(default=16, ge=1, le=64, description="How many.")
    seconds: float = Field(default=9.0, gt=0, allow_inf_nan=False, description="How long.")
    pooling: Literal["first", "mean"] = Field(default="first", description="Which.")
    upright: bool = Field(default=False, description="Turned.")
    model: str | None = Field(default="small", min_length=1, description="Name.")


def thing(text):
    return defaults_from(VARIABLE, {VARIABLE: text})(Thing)


@pytest.mark.parametrize("environ", [{}, {VARIABLE: ""}, {VARIABLE: "{}"}])
def test_without_the_variable_nothing_changes(environ):
    assert defaults_from(VARIABLE, environ)(Thing) is Thing


def test_the_variables_fields_become_defaults_and_others_stay():
    changed = thing('{"pooling": "mean", "seconds": 5, "model": null}')
    assert changed().model_dump() == {
        "frames": 16,
        "seconds": 5.0,
        "pooling": "mean",
        "upright": False,
        "model": None,
    }
    assert Thing().pooling == "first", "the class itself is untouched"
    assert issubclass(changed, Thing)
    assert (changed.__name__, changed.__doc__) == ("Thing", "A thing.")


def test_the_launchpad_shows_them_with_their_descriptions_in_their_order():
    shown = thing('{"pooling": "mean", "frames": 4}').to_fields_dict()
    assert list(shown) == list(Thing.to_fields_dict())
    assert shown["frames"].default_value == 4
    assert shown["frames"].description == "How many."
    assert shown["pooling"].default_value == "mean"
    assert shown["seconds"].default_value == 9.0


def test_a_run_config_still_overrides_and_is_still_checked():
    changed = thing('{"frames": 4}')
    assert changed(frames=8).frames == 8
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        changed(frames=0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pooling=mean", "must be a JSON object of fields: found 'pooling=mean'"),
        ('["mean"]', "must be a JSON object of fields: found '[\"mean\"]'"),
        ("null", "must be a JSON object of fields: found 'null'"),
        ('{"frames": 4, "frames": 8}', "must name each field once"),
        ('{"frame": 4}', "has no field 'frame': expected some of frames, seconds, pooling"),
        ('{"frames": 0}', "'frames' must be greater than or equal to 1: found 0"),
        ('{"frames": "8"}', "'frames' must be a valid integer: found \"8\""),
        ('{"frames": 8.0}', "'frames' must be a valid integer: found 8.0"),
        ('{"frames": null}', "'frames' must be a valid integer: found null"),
        ('{"seconds": NaN}', "'seconds' must be"),
        ('{"upright": "yes"}', "'upright' must be a valid boolean: found \"yes\""),
        ('{"pooling": "cls"}', "'pooling' must be 'first' or 'mean': found \"cls\""),
        ('{"model": ""}', "'model' must have at least 1 character: found \"\""),
    ],
)
def test_what_is_wrong_is_one_sentence(text, says):
    with pytest.raises(ValueError, match=VARIABLE) as caught:
        thing(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
