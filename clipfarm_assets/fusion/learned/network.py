"""Encoders, a fusion strategy and a head as one network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from clipfarm_assets.fusion.learned.layers import mlp, projection
from clipfarm_assets.fusion.learned.modality_dropout import drop_modalities
from clipfarm_assets.fusion.learned.strategies import Fused, build_strategy
from clipfarm_assets.fusion.learned.tokens import TOKEN_STD, Tokens, masked_mean
from clipfarm_assets.fusion.options import FusionOptions

ENCODER_ROWS: Final = 32
"""Rows that go through an encoder at once, outside training."""

_RESERVED: Final = frozenset({"present", "context"})


class WrongInputs(ValueError):  # noqa: N818 - says what happened
    """What a network is called with is not what it was made for."""


@dataclass(frozen=True, slots=True)
class FusionOutput:
    """All that a network says of B rows.

    Attributes:
        logits: ``[B, classes]``.
        unimodal: ``[B, M, classes]``, what each modality's own head says; zeros where the modality
            is absent. None without auxiliary heads.
        fused: Vector, weights and attention maps.
        present: bool ``[B, M]``, what was fused: as given, less what modality dropout left out and
            what had no token.
    """

    logits: Tensor
    unimodal: Tensor | None
    fused: Fused
    present: Tensor


class FusionNetwork(nn.Module):
    """Encodes the modalities that are there, fuses them, and classifies.

    Inputs are named by modality: ``text.input_ids`` is the argument ``input_ids`` of the encoder of
    ``text``, and plain ``text`` is short for ``text.values``, which `StoredEncoder` takes. All are
    tensors of B rows.

    A modality costs what its present rows cost: only they are encoded. An absent one gets a learned
    token in their place, so its inputs may hold anything, NaN included, and are without influence,
    bit for bit; those of a modality that no row has may be left out.

    Outside training a row's output does not depend on the rows that come with it as long as their
    number and shapes are the same: encoders and projections see blocks of exactly `ENCODER_ROWS`,
    as a matrix product's last bits depend on the number of its rows.

    Attributes:
        modalities: Their names, in the order of `present`.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        options: FusionOptions,
        *,
        classes: int,
        context_dim: int = 0,
    ) -> None:
        """Draw everything but the encoders.

        Args:
            encoders: An `Encoder` a modality, in order. Frozen ones are to be frozen, and kept in
                eval mode, by the caller.
            options: What the rest is made of.
            classes: Width of the logits.
            context_dim: Width of what else is known of a row, which the gate and the head see.

        Raises:
            ValueError: There are no encoders, one has a name that arguments have, or the strategy
                needs more of them.
        """
        super().__init__()
        if not encoders or _RESERVED & set(encoders):
            msg = f"encoders must be by modality, other than {sorted(_RESERVED)}: {list(encoders)}"
            raise ValueError(msg)
        self.modalities = tuple(encoders)
        self.context_dim = context_dim
        self.modality_dropout = options.modality_dropout
        self.encoders = nn.ModuleDict(dict(encoders))
        widths = {name: int(encoder.dim) for name, encoder in encoders.items()}
        dims = {name: options.dim or width for name, width in widths.items()}
        self.projections = nn.ModuleDict(
            {
                name: nn.Identity() if options.dim is None else projection(width, options.dim)
                for name, width in widths.items()
            }
        )
        self.missing = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(dim) * TOKEN_STD) for name, dim in dims.items()}
        )
        self.strategy = build_strategy(options, dims, context_dim)
        self.head = mlp(
            self.strategy.out_dim + context_dim, options.hidden, classes, options.dropout
        )
        self.unimodal = nn.ModuleDict(
            {name: nn.Linear(dim, classes) for name, dim in dims.items() if options.auxiliary}
        )

    def forward(self, present: Tensor, context: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """Classify.

        Args:
            present: bool ``[B, M]``, in the order of `modalities`. A row whose encoder gives no
                token that is real counts as absent, too.
            context: ``[B, context_dim]``, if the network was made for one.
            **inputs: See the class.

        Returns:
            Logits ``[B, classes]``, finite for rows with nothing present, too.

        Raises:
            WrongInputs: Their names or shapes are others.
        """
        return self.outputs(present, context, **inputs).logits

    def weights(self, present: Tensor, context: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """How much each modality counted, ``[B, M]``: see `Fused.weights`."""
        return self.outputs(present, context, **inputs).fused.weights

    def outputs(
        self, present: Tensor, context: Tensor | None = None, **inputs: Tensor
    ) -> FusionOutput:
        """As `forward`, with all there is to know."""
        by_modality = self._checked(present, context, inputs)
        if self.training and self.modality_dropout:
            present = drop_modalities(present, self.modality_dropout)
        tokens, there = [], []
        for index, (name, own) in enumerate(by_modality.items()):
            each, rows = self._tokens(name, own, present[:, index])
            tokens.append(each)
            there.append(rows)
        present = torch.stack(there, dim=1)
        fused = self.strategy(tokens, present, context)
        seen = fused.vector if context is None else torch.cat([fused.vector, context], dim=1)
        return FusionOutput(self.head(seen), self._unimodal(tokens, present), fused, present)

    def _tokens(
        self, name: str, inputs: Mapping[str, Tensor], present: Tensor
    ) -> tuple[Tokens, Tensor]:
        """One modality's projected tokens, the missing one in absent rows; and which rows have any.

        ``[B, T, d]``, and bool ``[B]``.
        """
        encoded, rows = self._encoded(name, inputs, present.nonzero().squeeze(1))
        length = 1 if encoded is None else encoded.mask.shape[1]
        values = self.missing[name].expand(len(present), 1, -1)
        values = nn.functional.pad(values, (0, 0, 0, length - 1))
        mask = torch.zeros(len(present), length, dtype=torch.bool, device=present.device)
        mask[:, 0] = True
        there = torch.zeros_like(present)
        if encoded is not None:
            values = values.index_copy(0, rows, encoded.values.to(values.dtype))
            mask[rows] = encoded.mask
            there[rows] = True
        return Tokens(values, mask), there

    def _encoded(
        self, name: str, inputs: Mapping[str, Tensor], rows: Tensor
    ) -> tuple[Tokens | None, Tensor]:
        """Projected tokens of those of `rows` that have any, and which ones these are.

        None if the number of tokens is unknown, because nothing had to be encoded.
        """
        if not len(rows):
            if self.training or not inputs:
                return None, rows
            # For the number of tokens: masked ones, too, decide the last bits of a softmax.
            blank = {key: torch.zeros_like(value[:1]) for key, value in inputs.items()}
            encoded = self._projected(name, blank)
            return Tokens(encoded.values[:0], encoded.mask[:0]), rows
        if self.training:
            blocks = [rows]
        else:
            spare = rows[:1].expand(-len(rows) % ENCODER_ROWS)
            blocks = list(torch.cat([rows, spare]).split(ENCODER_ROWS))
        parts = [
            self._projected(name, {key: value[block] for key, value in inputs.items()})
            for block in blocks
        ]
        mask = torch.cat([part.mask for part in parts])[: len(rows)]
        values = torch.cat([part.values for part in parts])[: len(rows)]
        found = mask.any(dim=1)
        return Tokens(values[found], mask[found]), rows[found]

    def _projected(self, name: str, inputs: Mapping[str, Tensor]) -> Tokens:
        tokens: Tokens = self.encoders[name](**inputs)
        # Zeros before the projection: what is no number would spoil the gradient of its weights.
        values = torch.where(tokens.mask.unsqueeze(2), tokens.values, 0)
        return Tokens(self.projections[name](values), tokens.mask)

    def _unimodal(self, tokens: Sequence[Tokens], present: Tensor) -> Tensor | None:
        if not self.unimodal:
            return None
        logits = [
            self.unimodal[name](masked_mean(each))
            for name, each in zip(self.modalities, tokens, strict=True)
        ]
        return torch.where(present.unsqueeze(2), torch.stack(logits, dim=1), 0)

    def _checked(
        self, present: Tensor, context: Tensor | None, inputs: Mapping[str, Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        """The encoders' arguments by modality.

        Raises:
            WrongInputs: See `forward`.
        """
        rows = len(present)
        problems = []
        if present.dtype != torch.bool or present.shape != (rows, len(self.modalities)):
            problems.append(
                f"present must be bool [B, {len(self.modalities)}], a column for each of "
                f"{list(self.modalities)}: found {present.dtype} {list(present.shape)}"
            )
        expected = (rows, self.context_dim) if self.context_dim else None
        found = None if context is None else tuple(context.shape)
        if found != expected:
            problems.append(f"context must be of shape {expected}: found {found}")
        by_modality: dict[str, dict[str, Tensor]] = {name: {} for name in self.modalities}
        for key, value in inputs.items():
            name, _, argument = key.partition(".")
            if name not in by_modality:
                problems.append(f"{key} is of none of the modalities {list(self.modalities)}")
            elif len(value) != rows:
                problems.append(f"{key} must have {rows} rows, as present: found {len(value)}")
            else:
                by_modality[name][argument or "values"] = value
        if not problems:
            problems = [
                f"{name} has no inputs, and is present in {count} rows"
                for name, count in zip(self.modalities, present.sum(dim=0).tolist(), strict=True)
                if count and not by_modality[name]
            ]
        if problems:
            raise WrongInputs("; ".join(problems))
        return by_modality
