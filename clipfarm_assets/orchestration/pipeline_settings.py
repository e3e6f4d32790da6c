"""A deployment's settings of one pipeline, out of the variable that holds them."""

from collections.abc import Mapping
from typing import TypeVar

from clipfarm_assets.orchestration.settings import BadSettings, validated
from clipfarm_assets.pipelines.environment import json_object
from clipfarm_assets.training.config import Settings


class PipelineSettings(Settings):
    """Settings that say where a pipeline's files lie."""

    @property
    def layout(self) -> object:
        """Where files lie.

        Raises:
            OutsideStore: A key can't be one.
        """
        raise NotImplementedError


_Settings = TypeVar("_Settings", bound=PipelineSettings)


def settings_from(environ: Mapping[str, str], variable: str, kind: type[_Settings]) -> _Settings:
    """The settings that a variable holds as a JSON object; what it leaves out has its default.

    Raises:
        ValueError: It is no JSON object, a field doesn't exist, or a value isn't the field's; one
            sentence says what was expected and found.
    """
    values = json_object(variable, environ.get(variable) or "{}")
    settings = validated(kind, values, variable)
    try:
        _ = settings.layout
    except ValueError as error:
        msg = f"{variable}: {error}"
        raise BadSettings(msg) from None
    return settings
