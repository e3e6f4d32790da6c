"""The four ways in which the tokens of M modalities become one vector.

All of them get an absent modality as one learned token, which stands in the place of the real ones:
so every modality of every row has a token, and no sum or softmax runs over nothing. `Fused.weights`
counts the present ones alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from clipfarm_assets.fusion.learned.attention import AttentionLayer
from clipfarm_assets.fusion.learned.gated import GatedFusion
from clipfarm_assets.fusion.learned.tokens import TOKEN_STD, Tokens, masked_mean
from clipfarm_assets.fusion.options import FusionOptions


@dataclass(frozen=True, slots=True)
class Fused:
    """B rows, fused.

    Attributes:
        vector: ``[B, out_dim]``.
        weights: ``[B, M]``, how much each modality counted: non-negative with sum 1, exactly zero
            for an absent one, all zero where nothing is present. What counting means differs by
            strategy, see there.
        maps: Attention of the last layer by ``"<query>-><key>"``, ``[B, H, T_query, T_key]``,
            detached. Over all keys of a query they add up to 1; a padding query's are to be
            ignored. Empty where there is no attention.
    """

    vector: Tensor
    weights: Tensor
    maps: Mapping[str, Tensor] = field(default_factory=dict)


class Strategy(nn.Module, ABC):
    """Fuses M modalities in a fixed order.

    Attributes:
        names: Of the modalities.
        out_dim: Width of `Fused.vector`.
    """

    names: tuple[str, ...]
    out_dim: int

    @abstractmethod
    def forward(
        self, tokens: Sequence[Tokens], present: Tensor, context: Tensor | None = None
    ) -> Fused:
        """Fuse.

        Args:
            tokens: M modalities, ``[B, T_m, d_m]``, finite where masked, too; each row of each
                has a real token, an absent one a learned stand-in.
            present: bool ``[B, M]``.
            context: ``[B, C]``, what else is known of the rows; only a gate looks at it.
        """


class Late(Strategy):
    """The modalities' mean tokens, side by side.

    It weighs nothing: those present count evenly.
    """

    def __init__(self, dims: Mapping[str, int]) -> None:
        """Without parameters."""
        super().__init__()
        self.names = tuple(dims)
        self.out_dim = sum(dims.values())

    def forward(
        self,
        tokens: Sequence[Tokens],
        present: Tensor,
        context: Tensor | None = None,  # noqa: ARG002 - of the interface
    ) -> Fused:
        """See `Strategy.forward`."""
        vectors = [masked_mean(each) for each in tokens]
        return Fused(torch.cat(vectors, dim=1), _shares(present.to(vectors[0].dtype), present))


class Gated(Strategy):
    """The sum of the modalities' mean tokens, weighted by a gate: see `GatedFusion`.

    The gate sees which modalities are present, the context, and, unless told not to, what the
    modalities say.
    """

    def __init__(
        self, dims: Mapping[str, int], context_dim: int, hidden: int, *, on_content: bool
    ) -> None:
        """Draw the gate."""
        super().__init__()
        self.names = tuple(dims)
        self.out_dim = _one_width(dims)
        self.on_content = on_content
        content_dim = sum(dims.values()) if on_content else 0
        self.fusion = GatedFusion(len(dims), content_dim + len(dims) + context_dim, hidden)

    def forward(
        self, tokens: Sequence[Tokens], present: Tensor, context: Tensor | None = None
    ) -> Fused:
        """See `Strategy.forward`."""
        vectors = [masked_mean(each) for each in tokens]
        seen = [*vectors] if self.on_content else []
        seen.append(present.to(vectors[0].dtype))
        if context is not None:
            seen.append(context)
        return Fused(*self.fusion(vectors, present, torch.cat(seen, dim=1)))


class Early(Strategy):
    """One transformer over the tokens of all modalities, read out by a token of its own.

    A modality's weight is its share of the attention that this token pays in the last layer. Sound,
    notes and words share no space before their tokens do: these are what is joined earliest.
    """

    def __init__(self, dims: Mapping[str, int], heads: int, layers: int, dropout: float) -> None:
        """Draw the weights."""
        super().__init__()
        self.names = tuple(dims)
        self.out_dim = _one_width(dims)
        self.readout = nn.Parameter(torch.randn(self.out_dim) * TOKEN_STD)
        self.layers = nn.ModuleList(
            AttentionLayer(self.out_dim, heads, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(self.out_dim)

    def forward(
        self,
        tokens: Sequence[Tokens],
        present: Tensor,
        context: Tensor | None = None,  # noqa: ARG002 - of the interface
    ) -> Fused:
        """See `Strategy.forward`."""
        rows = len(present)
        readout = self.readout.expand(rows, 1, -1)
        sequence = torch.cat([readout, *(each.values for each in tokens)], dim=1)
        mask = torch.cat([present.new_ones(rows, 1), *(each.mask for each in tokens)], dim=1)
        *inner, last = self.layers
        for layer in inner:
            sequence, _ = layer(sequence, sequence, mask)
        # Nobody looks at the other tokens after the last layer.
        vector, attention = last(sequence[:, :1], sequence, mask)
        parts = attention[..., 1:].split([each.mask.shape[1] for each in tokens], dim=3)
        received = torch.stack([part.mean(dim=1).sum(dim=(1, 2)) for part in parts], dim=1)
        maps = dict(zip((f"fused->{name}" for name in self.names), parts, strict=True))
        return Fused(self.norm(vector[:, 0]), _shares(received, present), _detached(maps))


class CrossAttention(Strategy):
    """Each modality's tokens query the tokens of all others; their means, side by side.

    A modality's weight is its share of the attention that the others pay to it in the last layer.
    Of two modalities the only other one gets all of it, so both weigh a half.
    """

    def __init__(self, dims: Mapping[str, int], heads: int, layers: int, dropout: float) -> None:
        """Draw the weights.

        Raises:
            ValueError: There is one modality only.
        """
        super().__init__()
        if len(dims) < 2:
            msg = f"cross_attention needs at least two modalities: found {list(dims)}; use 'late'"
            raise ValueError(msg)
        self.names = tuple(dims)
        dim = _one_width(dims)
        self.out_dim = dim * len(dims)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: AttentionLayer(dim, heads, dropout) for name in dims})
            for _ in range(layers)
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(dim) for name in dims})

    def forward(
        self,
        tokens: Sequence[Tokens],
        present: Tensor,
        context: Tensor | None = None,  # noqa: ARG002 - of the interface
    ) -> Fused:
        """See `Strategy.forward`."""
        now = dict(zip(self.names, tokens, strict=True))
        maps: dict[str, Tensor] = {}
        for layer in self.layers:
            before, now, maps = now, {}, {}
            for name, queries in before.items():
                others = {other: each for other, each in before.items() if other != name}
                keys = torch.cat([each.values for each in others.values()], dim=1)
                mask = torch.cat([each.mask for each in others.values()], dim=1)
                values, attention = layer[name](queries.values, keys, mask)
                now[name] = Tokens(values, queries.mask)
                parts = attention.split([each.mask.shape[1] for each in others.values()], dim=3)
                maps |= {f"{name}->{key}": part for key, part in zip(others, parts, strict=True)}
        vectors = [
            masked_mean(Tokens(self.norms[name](each.values), each.mask))
            for name, each in now.items()
        ]
        weights = _shares(self._received(maps, tokens, present), present)
        return Fused(torch.cat(vectors, dim=1), weights, _detached(maps))

    def _received(
        self, maps: Mapping[str, Tensor], tokens: Sequence[Tokens], present: Tensor
    ) -> Tensor:
        """Attention that present modalities pay to each one, ``[B, M]``, per real query."""
        received = {name: torch.zeros_like(present[:, 0], dtype=torch.float) for name in self.names}
        for index, (query, each) in enumerate(zip(self.names, tokens, strict=True)):
            for key in self.names:
                if key != query:
                    paid = maps[f"{query}->{key}"].mean(dim=1).sum(dim=2, keepdim=True)
                    mean = masked_mean(Tokens(paid, each.mask)).squeeze(1)
                    received[key] = received[key] + mean * present[:, index]
        return torch.stack(list(received.values()), dim=1)


def build_strategy(
    options: FusionOptions, dims: Mapping[str, int], context_dim: int = 0
) -> Strategy:
    """The strategy that `options` name, freshly drawn.

    Args:
        options: Which one, and its settings.
        dims: Width of each modality's tokens, in order.
        context_dim: Width of the context; 0 for none.

    Raises:
        ValueError: The strategy needs two modalities, or all at one width.
    """
    if options.strategy == "late":
        return Late(dims)
    if options.strategy == "gated":
        return Gated(dims, context_dim, options.gate_hidden, on_content=options.gate_on_content)
    kind = Early if options.strategy == "early" else CrossAttention
    return kind(dims, options.heads, options.layers, options.attention_dropout)


def _one_width(dims: Mapping[str, int]) -> int:
    widths = set(dims.values())
    if len(widths) != 1:
        msg = f"this strategy needs all modalities at one width: found {dict(dims)}"
        raise ValueError(msg)
    return widths.pop()


def _shares(received: Tensor, present: Tensor) -> Tensor:
    """What present modalities received, as shares of 1; evenly where that is nothing at all."""
    received = torch.where(present, received, 0)
    total = received.sum(dim=1, keepdim=True)
    counted = torch.where(total > 0, received, present.to(received.dtype))
    return counted / counted.sum(dim=1, keepdim=True).clamp(min=torch.finfo(counted.dtype).tiny)


def _detached(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.detach() for name, each in maps.items()}
