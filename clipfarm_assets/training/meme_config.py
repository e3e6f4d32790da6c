"""All settings of the fusion of memes' text and image.

The defaults are those of the pilot's design: representations of frozen experts side by side through
``Linear -> GELU -> Dropout -> Linear``, by cross entropy.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clipfarm_assets.fusion.options import FusionOptions, StrategyName
from clipfarm_assets.training.config import FitConfig, Positive, Rate, Settings, Share
from clipfarm_assets.training.expert_config import SHUFFLE_BYTES

Representation = Literal["hidden", "logits"]
Loss = Literal["cross_entropy", "binary_cross_entropy"]

Count = Annotated[int, Field(ge=0)]


class MemeFusionConfig(Settings):
    """What decides a fusion model, beside the experts and the shards.

    Attributes:
        text_representation, image_representation: What of an expert the head sees: its hidden
            state, or its logits. Experts are too sure of rows they were fitted on, so a head that
            is fitted on their logits, which are not cross-fit, trusts them too much: prefer hidden
            states. The model's notes say so.
        hidden: Width of the head's hidden layer, and of the projections before it.
        dropout: Share of hidden values left out in training.
        strategy: How the modalities' tokens become one vector.
        modality_dropout: Probability with which training hides a modality of a row, never the last.
        objective: ``binary_cross_entropy`` is for two classes, and gives the head one output.
        class_weights: ``balanced`` weighs a class by rows / (classes * rows of the class).
        unfreeze_top_layers: How many of each expert's last layers are trained along.
        lora_rank: Rank of low-rank updates of the linear parts of all of the experts' layers; 0
            for none. Needs the extra ``lora``.
        expert_learning_rate: Of what is trained of the experts.
        shuffle_buffer: Rows an epoch is shuffled within.
        shuffle_bytes: Bytes that these have at most where experts are trained along, and images are
            held as they are stored; one row at least.
        seed: Decides every random choice.
        fit: The loop's.
    """

    text_representation: Representation = "hidden"
    image_representation: Representation = "hidden"
    hidden: Positive = 256
    dropout: Share = 0.1
    strategy: StrategyName = "late"
    modality_dropout: Share = 0.0
    objective: Loss = "cross_entropy"
    class_weights: Literal["balanced", "none"] = "balanced"
    unfreeze_top_layers: Count = 0
    lora_rank: Count = 0
    expert_learning_rate: Rate = 2e-5
    shuffle_buffer: Positive = 1024
    shuffle_bytes: Positive = SHUFFLE_BYTES
    seed: Annotated[int, Field(ge=0)] = 42
    fit: FitConfig = FitConfig(batch_size=64, patience=8)

    @property
    def are_experts_frozen(self) -> bool:
        """Whether the experts stay as they are."""
        return self.unfreeze_top_layers == 0 and self.lora_rank == 0

    @property
    def representations(self) -> dict[Literal["text", "vision"], Representation]:
        """What the head sees, by modality."""
        return {"text": self.text_representation, "vision": self.image_representation}

    @property
    def options(self) -> FusionOptions:
        """What the fusion network is made of."""
        return FusionOptions(
            strategy=self.strategy,
            # Late fusion begins with the head's own layer; the others need one width.
            dim=None if self.strategy == "late" else self.hidden,
            hidden=(self.hidden,),
            dropout=self.dropout,
            modality_dropout=self.modality_dropout,
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lora_rank and self.unfreeze_top_layers:
            msg = "give `lora_rank` or `unfreeze_top_layers`, not both: found both above 0"
            raise ValueError(msg)
        return self


class MemeEvaluationConfig(Settings):
    """How the models of a label are judged.

    Attributes:
        resamples: Of the bootstrap.
        confidence: Of every interval.
        seed: Of the bootstrap.
    """

    resamples: Positive = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 42
