"""All settings of the experts: one model of a meme's text, one of its image."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from clipfarm_assets.training.config import FitConfig, Positive, Rate, Settings

TextPooling = Literal["cls", "mean"]
ImagePooling = Literal["pooled"]
SHUFFLE_BYTES: Final = 256 * 2**20

TopLayers = Annotated[int, Field(ge=0)] | Literal["all"]


class TextRepresentation(Settings):
    """What of a text expert other models see.

    Attributes:
        pooling: Its hidden state: the first token's, or the mean of all.
        max_tokens: Tokens of a text, special ones included; what is beyond is cut and counted.
    """

    modality: Literal["text"] = "text"
    pooling: TextPooling = "cls"
    max_tokens: Annotated[int, Field(ge=4, le=8192)] = 128


class ImageRepresentation(Settings):
    """What of a vision expert other models see.

    Attributes:
        pooling: ``pooled`` is the model's own pooled output where it has one, else its first token,
            else the mean of its feature map.
    """

    modality: Literal["vision"] = "vision"
    pooling: ImagePooling = "pooled"


class ExpertConfig(Settings):
    """What decides an expert, beside the shards.

    Attributes:
        model: Directory or hub name ``[@revision]`` of a finished expert, used as it is. Unset, the
            environment's ``CLIPFARM_TEXT_EXPERT`` or ``CLIPFARM_VISION_EXPERT`` counts; then a
            model directory that somebody put into the store where the expert belongs.
        class_names: What a finished expert calls each of its classes -> what the taxonomy calls it,
            where that is not the same; ``LABEL_0`` and so on need none.
        base: Of the model to fine-tune where there is no finished one. Unset, the profile's.
        text: Of a text expert.
        image: Of a vision expert.
        top_layers: How many of the base's last layers are trained; 0 trains the head alone.
        layers_learning_rate: Of the layers; that of the head is ``fit.learning_rate``.
        lora_rank: In place of whole layers, low-rank updates of their linear parts, merged into
            them in the end; 0 for none. Needs the extra ``lora``.
        class_weights: ``balanced`` weighs a class by rows / (classes * rows of the class).
        shuffle_buffer: Rows an epoch is shuffled within.
        shuffle_bytes: Bytes that these have at most, one row at least; images are held as they are
            stored, so that large ones are shuffled within fewer rows.
        seed: Decides every random choice.
        fit: The loop's.
    """

    model: Annotated[str, Field(min_length=1)] | None = None
    class_names: dict[str, str] | None = None
    base: Annotated[str, Field(min_length=1)] | None = None
    text: TextRepresentation = TextRepresentation()
    image: ImageRepresentation = ImageRepresentation()
    top_layers: TopLayers = "all"
    layers_learning_rate: Rate = 2e-5
    lora_rank: Annotated[int, Field(ge=0)] = 0
    class_weights: Literal["balanced", "none"] = "balanced"
    shuffle_buffer: Positive = 1024
    shuffle_bytes: Positive = SHUFFLE_BYTES
    seed: Annotated[int, Field(ge=0)] = 42
    fit: FitConfig = FitConfig(learning_rate=1e-3, batch_size=32, max_epochs=3, patience=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lora_rank and self.top_layers not in {"all", 0}:
            msg = (
                "give `lora_rank` or `top_layers`, not both: low-rank updates are of all layers, "
                f"found lora_rank {self.lora_rank} and top_layers {self.top_layers}"
            )
            raise ValueError(msg)
        return self
