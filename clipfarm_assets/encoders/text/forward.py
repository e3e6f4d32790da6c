"""One forward for many texts: BERT over their tokens laid end to end.

Linear layers and layer norms take a token at a time, so all texts go through them as one matrix.
Attention mixes the tokens of one text only and runs a text at a time, without a mask. Nothing is
padded but the end of a pack.

A text's bits are the same in every pack as long as a row of ``x @ W.T`` does not depend on the
other rows. In float32 with one thread, MKL keeps to that from `LEAST_ROWS` rows on; in bfloat16
kernels change with the number of rows, so that it has to be fixed. `check.rows_stand_alone`
tries it on the machine at hand.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.config import Precision
from clipfarm_assets.encoders.text.packing import PackShape, plan_packs

_ANY_TOKEN: Final = 0
"""What fills rows that belong to no text. They are computed and dropped."""


@dataclass(frozen=True, slots=True)
class Linear:
    """``x @ weight.T + bias``, in the type of `weight`.

    Attributes:
        weight: ``(out, in)``.
        bias: ``(out,)``.
    """

    weight: Any
    bias: Any

    @classmethod
    def of(cls, module: Any, dtype: Any) -> Self:
        """A ``torch.nn.Linear``'s parameters as `dtype`; shared if they are of it already."""
        return cls(module.weight.detach().to(dtype), module.bias.detach().to(dtype))

    def __call__(self, x: Any) -> Any:
        """Rows ``(rows, in)`` to ``(rows, out)``."""
        from torch.nn import functional

        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One transformer layer. Residuals and layer norms are float32, whatever the linears are."""

    query: Linear
    key: Linear
    value: Linear
    mixed: Linear
    mixed_norm: Callable[[Any], Any]
    up: Linear
    activation: Callable[[Any], Any]
    down: Linear
    down_norm: Callable[[Any], Any]
    heads: int

    @classmethod
    def of(cls, layer: Any, dtype: Any) -> Self:
        attention = layer.attention
        return cls(
            query=Linear.of(attention.self.query, dtype),
            key=Linear.of(attention.self.key, dtype),
            value=Linear.of(attention.self.value, dtype),
            mixed=Linear.of(attention.output.dense, dtype),
            mixed_norm=attention.output.LayerNorm,
            up=Linear.of(layer.intermediate.dense, dtype),
            activation=layer.intermediate.intermediate_act_fn,
            down=Linear.of(layer.output.dense, dtype),
            down_norm=layer.output.LayerNorm,
            heads=attention.self.num_attention_heads,
        )

    def linears(self) -> tuple[Linear, ...]:
        return (self.query, self.key, self.value, self.mixed, self.up, self.down)

    def __call__(self, hidden: Any, spans: Sequence[tuple[int, int]]) -> Any:
        low = hidden.to(self.query.weight.dtype)
        context = self._attend(self.query(low), self.key(low), self.value(low), spans)
        hidden = self.mixed_norm(self.mixed(context) + hidden)
        return self.down_norm(self.down(self.activation(self.up(hidden))) + hidden)

    def _attend(self, query: Any, key: Any, value: Any, spans: Sequence[tuple[int, int]]) -> Any:
        """Each text's tokens attend to each other; all arguments and the result ``(rows, dim)``."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        context = torch.empty_like(query)
        for start, end in spans:
            by_head = (
                part[start:end].view(1, end - start, self.heads, -1).transpose(1, 2)
                for part in (query, key, value)
            )
            attended = scaled_dot_product_attention(*by_head)
            context[start:end] = attended.transpose(1, 2).reshape(end - start, -1)
        context[spans[-1][1] :] = 0.0
        return context


class PackedBert:
    """Token ids to the unit vectors of a `Transformer, Pooling(mean), Normalize` model.

    Safe to call from several threads: it only reads the weights.
    """

    def __init__(self, bert: Any, precision: Precision, shape: PackShape) -> None:
        """Share a ``BertModel``'s weights; in bf16 hold a copy of its linear layers' too.

        Args:
            bert: The model, float32.
            precision: What the linear layers and attention compute in.
            shape: How many rows a forward has.
        """
        import torch

        dtype = torch.float32 if precision == "exact" else torch.bfloat16
        self._embeddings = bert.embeddings
        self._layers = [_Layer.of(layer, dtype) for layer in bert.encoder.layer]
        self._device = bert.device
        self._shape = shape

    def linears(self) -> Iterator[Linear]:
        """All linear layers."""
        return chain.from_iterable(layer.linears() for layer in self._layers)

    def __call__(self, texts: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """A float32 unit vector of shape ``(dim,)`` for each text.

        Args:
            texts: Token ids of each text with its special tokens, at least one.
        """
        import torch

        vectors: dict[int, NDArray[np.float32]] = {}
        with torch.inference_mode():
            for pack in plan_packs([len(text) for text in texts], self._shape.budget):
                found = self._embed([texts[index] for index in pack])
                vectors.update(zip(pack, found, strict=True))
        return [vectors[index] for index in range(len(texts))]

    def _embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """One forward. Returns ``(texts, dim)``."""
        import torch
        from torch.nn.functional import normalize

        lengths = [len(text) for text in texts]
        tokens = sum(lengths)
        rest = [_ANY_TOKEN] * (self._shape.rows(tokens) - tokens)
        ids = torch.tensor([*chain.from_iterable(texts), *rest], device=self._device)
        positions = torch.tensor(
            [*chain.from_iterable(map(range, lengths)), *rest], device=self._device
        )
        spans = list(pairwise(accumulate(lengths, initial=0)))
        embeddings = self._embeddings
        # In BERT's order of additions, which decides last bits. Single texts are of type 0.
        hidden = embeddings.word_embeddings(ids) + embeddings.token_type_embeddings.weight[0]
        hidden = embeddings.LayerNorm(hidden + embeddings.position_embeddings(positions))
        for layer in self._layers:
            hidden = layer(hidden, spans)
        means = [hidden[None, start:end].sum(dim=1) / (end - start) for start, end in spans]
        vectors: NDArray[np.float32] = normalize(torch.cat(means), p=2, dim=-1).cpu().numpy()
        return vectors
