"""What a fusion network is made of, as settings. Knows nothing of torch."""

from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

StrategyName = Literal["late", "early", "cross_attention", "gated"]
STRATEGIES: Final[tuple[StrategyName, ...]] = get_args(StrategyName)

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class FusionOptions(BaseModel):
    """Everything of a `FusionNetwork` beside its encoders and classes.

    Attributes:
        strategy: ``late`` puts modalities side by side, ``early`` reads all their tokens as one
            sequence, ``cross_attention`` lets each one query the others, ``gated`` weighs them.
        dim: Width that every modality is projected to. None, with ``late`` alone: as the encoders
            give them, so that the head is the first that is learned.
        hidden: Widths of the head's hidden layers.
        dropout: Share of the head's hidden values left out in training.
        modality_dropout: Chance of a modality of a row to be taken for absent in training; never
            the last one of the row.
        auxiliary: Whether each modality has a linear head of its own beside the fused one.
        heads: Attention heads, of ``early`` and ``cross_attention``.
        layers: Attention layers, likewise.
        attention_dropout: Share of attention weights left out in training, likewise.
        gate_hidden: Hidden width of the gate, of ``gated``. One that sees content and is much wider
            than `dim` may settle on one modality early, and never learn what only both tell.
        gate_on_content: Whether the gate sees what the modalities say, or only which of them are
            present, and the context.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: StrategyName = "late"
    dim: Positive | None = 256
    hidden: tuple[Positive, ...] = (256,)
    dropout: Share = 0.1
    modality_dropout: Share = 0.0
    auxiliary: bool = False
    heads: Positive = 4
    layers: Positive = 1
    attention_dropout: Share = 0.1
    gate_hidden: Positive = 128
    gate_on_content: bool = True

    @model_validator(mode="after")
    def _check_dim(self) -> Self:
        if self.dim is None:
            if self.strategy != "late":
                msg = (
                    f"strategy {self.strategy!r} needs all modalities at one width: "
                    "set dim, or use 'late'"
                )
                raise ValueError(msg)
        elif self.strategy in ("early", "cross_attention") and self.dim % self.heads:
            msg = f"dim must be a multiple of heads: found {self.dim} and {self.heads}"
            raise ValueError(msg)
        return self
