"""What a user may set on an encoder.

Plain pydantic models with scalar fields, so that they can be mixed into an orchestrator's own
configuration classes. Importing this module loads no model library.
"""

from string import Formatter
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, Field

from clipfarm_assets.encoders.base import Rotation

Device = Literal["auto", "cpu", "cuda", "mps"]
VideoPooling = Literal["first_token", "mean"]
LongText = Literal["truncate", "chunk_mean"]
Precision = Literal["exact", "bf16"]

TEMPLATE_FIELDS: Final = ("title", "description", "query")
"""The metadata fields a text template may name."""


def template_fields(template: str) -> tuple[str, ...]:
    """The fields a text template names, in order.

    Raises:
        ValueError: The template is malformed, names no field, or uses more of the format language
            than plain fields: attributes and indices reach into objects, conversions and format
            specs reshape text, and neither belongs into data.
    """
    allowed = ", ".join(f"{{{name}}}" for name in TEMPLATE_FIELDS)
    names = []
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        msg = f"template {template!r} is malformed ({error}); write fields as {allowed}"
        raise ValueError(msg) from error
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in TEMPLATE_FIELDS or spec or conversion:
            found = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            msg = f"template field {{{found}}} is not allowed; use only {allowed}, as they are"
            raise ValueError(msg)
        names.append(name)
    if not names:
        msg = f"template {template!r} names no field; use at least one of {allowed}"
        raise ValueError(msg)
    return tuple(names)


def _checked_template(template: str) -> str:
    template_fields(template)
    return template


class EncoderConfig(BaseModel):
    """Settings every encoder has."""

    model: str | None = Field(
        default=None,
        min_length=1,
        description="Hub name or local directory of the model; unset, the environment variable "
        "CLIPFARM_<MODALITY>_MODEL and then the profile decide.",
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        description="Revision of the hub model named in `model`, best a full commit hash.",
    )
    device: Device = Field(
        default="auto",
        description="Where the model runs; auto takes cuda, then mps, then cpu. "
        "Vectors of different devices differ in their last bits.",
    )
    threads: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Torch's threads for one item. Items run side by side, so one each wastes "
        "least, and a vector's bytes do not depend on the number of cores. Another number may "
        "change last bits.",
    )
    precision: Precision = Field(
        default="exact",
        description="exact: float32, the same bytes whatever the batch, the workers or the cores. "
        "bf16: matrix products in bfloat16, several times faster, and another embedding version; "
        "used only where a canary set embedded both ways shows the two to be equivalent, else "
        "exact stays and the run says so.",
    )
    item_deadline_seconds: float = Field(
        default=120.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds after which one item's decoding is given up and filed as failed.",
    )

    def version_params(self) -> dict[str, str | int | float]:
        """The settings that change a vector: a part of the embedding version.

        The exact precision is not named: vectors from before there was another one are exact.
        """
        named = {} if self.precision == "exact" else {"precision": self.precision}
        return {**self._own_params(), **named}

    def _own_params(self) -> dict[str, str | int | float]:
        raise NotImplementedError


class VideoConfig(EncoderConfig):
    """Settings of the video encoder."""

    num_frames: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Frames sampled uniformly over the clip. If the model takes another number, "
        "it gets its own number of these, again chosen uniformly.",
    )
    pooling: VideoPooling = Field(
        default="first_token",
        description="Which of the last layer's tokens become the vector: the first, or their mean.",
    )
    rotation: Rotation = Field(
        default="as_stored",
        description="Whether frames are embedded as they are stored, or turned upright as the "
        "file's display matrix asks.",
    )

    def _own_params(self) -> dict[str, str | int | float]:
        return {
            "num_frames": self.num_frames,
            "pooling": self.pooling,
            "rotation": self.rotation,
        }


class AudioConfig(EncoderConfig):
    """Settings of the audio encoder."""

    sample_rate: int = Field(
        default=16_000,
        ge=1_000,
        le=192_000,
        description="Hertz that audio is resampled to; must be what the model was trained with.",
    )
    max_audio_seconds: float = Field(
        default=90.0,
        gt=0,
        le=3_600,
        allow_inf_nan=False,
        description="Seconds of audio used, from the start; what is beyond is counted.",
    )

    def _own_params(self) -> dict[str, str | int | float]:
        return {"sample_rate": self.sample_rate, "max_audio_seconds": self.max_audio_seconds}


class TextConfig(EncoderConfig):
    """Settings of the text encoder."""

    template: Annotated[str, AfterValidator(_checked_template)] = Field(
        default="{title} [SEP] {description} [SEP] {query}",
        description="The metadata text, from the fields {title}, {description} and {query}.",
    )
    long_text: LongText = Field(
        default="truncate",
        description="What happens to text beyond the model's maximum: cut and counted, or embedded "
        "in chunks whose unit vectors are averaged.",
    )

    def _own_params(self) -> dict[str, str | int | float]:
        return {"template": self.template, "long_text": self.long_text}
