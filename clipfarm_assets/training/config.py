"""All settings of a training run, with the deployed pipeline's hyperparameters as defaults.

Sources: the training contract, sections 5 to 8, and the record of the deployed pipeline.
"""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

RankMetric = Literal["rmse_log", "mae_log", "r2_log", "rmse_raw", "mae_raw"]
RANK_METRICS: tuple[RankMetric, ...] = get_args(RankMetric)

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """Immutable, strict: an unknown or wrong field is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FitConfig(Settings):
    """The one fit loop of all networks: AdamW on the MSE of log1p(views).

    `device` is where it runs; ``auto`` takes a CUDA device if there is one. Only on the CPU do two
    runs give the same bits whatever the machine's build of CUDA.
    """

    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    batch_size: Positive = 256
    max_epochs: Positive = 40
    patience: Positive = 6
    device: Literal["cpu", "cuda", "auto"] = "cpu"


class ConcatMlpConfig(Settings):
    """``concat_mlp``: [fused || numeric || category embeddings] through one MLP."""

    hidden: tuple[Positive, ...] = (1024, 512, 256)
    dropout: Share = 0.20
    fit: FitConfig = FitConfig()


class GatedConfig(Settings):
    """``gated_fusion_mlp``: a tower a modality, weighted by a gate that sees the metadata."""

    tower_dim: Positive = 256
    gate_hidden: Positive = 128
    hidden: tuple[Positive, ...] = (256, 128)
    dropout: Share = 0.15
    fit: FitConfig = FitConfig(learning_rate=7e-4)


class RidgeConfig(Settings):
    """``ridge``. The grid goes on from the deployed one's 0.1 to 100 until only the mean is left.

    `block_scales` are what the fused block as a whole is multiplied by, relative to one
    standardised metadata column; the best (scale, alpha) by leave-one-out error is taken.
    """

    alphas: tuple[Rate, ...] = (
        0.1, 0.3, 1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6,
    )  # fmt: skip
    block_scales: tuple[Rate, ...] = (1.0, 3.0, 10.0)


class BoostingConfig(Settings):
    """``HistGradientBoostingRegressor``, wherever the suite uses it."""

    learning_rate: Rate = 0.05
    max_depth: Positive | None = 6
    max_iter: Positive = 500
    min_samples_leaf: Positive = 20
    l2_regularization: Annotated[float, Field(ge=0)] = 1e-4
    early_stopping: bool = True


class GbdtConfig(Settings):
    """``gbdt``: a network projects the fused vector, trees see projection and metadata.

    The projector trains for ``max(10, min(fit.max_epochs, 20))`` epochs at most.
    """

    projector_dim: Positive = 128
    projector_hidden: Positive = 256
    projector_dropout: Share = 0.1
    fit: FitConfig = FitConfig()
    boosting: BoostingConfig = BoostingConfig()


class PcaGbdtConfig(Settings):
    """``pca_gbdt``: components a modality, as-of channel history and metadata to trees.

    Few components and many shallow trees, without a holdout to stop early on: of what was tried on
    the generated sets (docs/training.md) this was best at 400 rows and at 1,900. Small sets lose
    most by a holdout, and by splits on components that carry noise.
    """

    components: Positive = 8
    boosting: BoostingConfig = BoostingConfig(max_iter=300, max_depth=3, early_stopping=False)


class StackedConfig(Settings):
    """``stacked``: non-negative weights over out-of-fold predictions of its base families."""

    folds: Annotated[int, Field(ge=2)] = 5
    base: tuple[Literal["ridge", "gbdt", "pca_gbdt", "concat_mlp", "gated_fusion_mlp"], ...] = (
        "ridge",
        "pca_gbdt",
    )


class SuiteConfig(Settings):
    """Everything that decides what a snapshot's models are, beside the data."""

    seed: int = 42
    rank_metric: RankMetric = "rmse_log"
    interval_coverage: Annotated[float, Field(gt=0, lt=1)] = 0.9
    concat_mlp: ConcatMlpConfig = ConcatMlpConfig()
    gated_fusion_mlp: GatedConfig = GatedConfig()
    ridge: RidgeConfig = RidgeConfig()
    gbdt: GbdtConfig = GbdtConfig()
    metadata_only: BoostingConfig = BoostingConfig()
    pca_gbdt: PcaGbdtConfig = PcaGbdtConfig()
    stacked: StackedConfig = StackedConfig()
