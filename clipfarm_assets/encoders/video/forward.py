"""VideoMAE's forward, computed only as far as it reaches the vector.

Of the last layer, a vector pooled from the first token needs that token's row alone: its query,
attention and feed-forward. Keys and values need every row, and so does each layer before. Of the
base model's 361 GFLOP a clip that leaves out a twelfth.
"""

import threading
from typing import Any, Final

from clipfarm_assets.encoders.config import Precision, VideoPooling
from clipfarm_assets.encoders.loading import half_precision_copy

# A library's kernels for few rows sum in another order than those for many: one row alone would
# have other last bits than the same row among all.
ROWS_TRIED: Final = (16, 512)
HALF_PRECISION_ROWS: Final = 16


class VideoForward:
    """Prepared pixels to pooled, not yet normalised vectors; safe to call from several threads.

    In exact precision on CPU the first clip a process embeds is also run through the model's own
    forward: the pruned way is used only if it gave the same bits there, with 16, else 512 rows of
    the last layer, and else the model's own forward is. On one thread a row's sums do not
    depend on the values in them, so equal bits on one clip mean equal bits on all; where a library
    chooses its kernels otherwise, one clip is evidence and no proof.

    In bf16 the matrix products of the layers are in bfloat16; the residual stream, the layer norms
    and the patch embedding stay in float32, which is what keeps the cosine to the exact vector near
    0.99999 (plain autocast gives 0.99995).

    Attributes:
        rows: Rows of the last layer that are computed; None until that is known, and where the
            model's own forward computes all.
        note: One sentence for a report: what is computed, and why.
    """

    def __init__(self, model: Any, precision: Precision, pooling: VideoPooling) -> None:
        """Prepare the layers; copies weights for bf16 on CPU.

        Args:
            model: A transformers ``VideoMAEModel``, on its device and in eval mode.
            precision: Of the matrix products.
            pooling: Which tokens of the last layer make the vector.
        """
        self._model = model
        self._pooling = pooling
        self._device_type: str = model.device.type
        self._lock = threading.Lock()
        self._chosen = True
        self.rows: int | None = None
        known, half, on_cpu = _known_layout(model), precision == "bf16", self._device_type == "cpu"
        self._autocast = half and not (known and on_cpu)
        self._layers: Any = None  # None: the model's own forward
        if half and known:
            layers = model.encoder.layer
            self._layers = half_precision_copy(layers) if on_cpu else layers
        if not known:
            self.note = "all rows: the model's layers are not of the layout this was written for"
        elif pooling == "mean":
            self.note = "all rows: their mean is the vector"
        elif half:
            self.rows = HALF_PRECISION_ROWS
            self.note = f"the first {self.rows} rows of the last layer"
        elif on_cpu:
            self._chosen, self.note = False, "not known before the first clip"
        else:
            self.note = f"all rows: fewer are compared on CPU only, this is {self._device_type}"

    def __call__(self, values: Any) -> Any:
        """Vectors of normalised clips.

        Args:
            values: Float32 tensor of shape (clips, frames, 3, height, width) on the model's device.

        Returns:
            Float32 tensor of shape (clips, dim), on the same device.
        """
        import torch

        # Neither context is inherited from the thread that made this object.
        with (
            torch.inference_mode(),
            torch.autocast(self._device_type, torch.bfloat16, enabled=self._autocast),
        ):
            if not self._chosen:
                with self._lock:
                    if not self._chosen:
                        return self._choose(values)
            return self._pooled(values).float()

    def _pooled(self, values: Any) -> Any:
        if self._layers is None:
            hidden = self._model(pixel_values=values).last_hidden_state
        else:
            hidden = self._hidden(values, self._layers, self.rows)
        # VideoMAE has no class token: "first token" is the first tubelet's, and the contract.
        return hidden[:, 0] if self._pooling == "first_token" else hidden.mean(dim=1)

    def _hidden(self, values: Any, layers: Any, rows: int | None) -> Any:
        """The last layer's output, its first `rows` rows or all, as the model's own norm has it."""
        hidden = self._model.embeddings(values, None).float()
        for layer in layers[:-1]:
            hidden = _layer(layer, hidden, None)
        hidden = _layer(layers[-1], hidden, rows)
        return hidden if self._model.layernorm is None else self._model.layernorm(hidden)

    def _choose(self, values: Any) -> Any:
        """Compare with the model's own forward on these clips; returns that one's vectors."""
        full = self._pooled(values).float()
        layers = self._model.encoder.layer
        tokens = self._model.embeddings.patch_embeddings.num_patches
        self.note = "all rows: fewer gave other bits on the first clip"
        for rows in (rows for rows in ROWS_TRIED if rows < tokens):
            pruned = self._hidden(values, layers, rows)[:, 0]
            # Bytes, not values: a NaN equals itself here.
            if pruned.cpu().numpy().tobytes() == full.cpu().numpy().tobytes():
                self.note = (
                    f"the first {rows} rows of the last layer: the same bits as all {tokens} on "
                    "the first clip"
                )
                self.rows, self._layers = rows, layers
                break
        self._chosen = True
        return full


def _layer(layer: Any, hidden: Any, rows: int | None) -> Any:
    """One pre-norm transformer layer, for the first `rows` rows of its output or for all.

    Args:
        layer: A transformers ``VideoMAELayer``, in float32 or with linear layers in bfloat16.
        hidden: Float32 of shape (clips, tokens, dim): the residual stream.
        rows: How many rows, or None for all.
    """
    from torch.nn.functional import scaled_dot_product_attention

    attention = layer.attention.attention
    dtype = attention.key.weight.dtype
    normed = layer.layernorm_before(hidden).to(dtype)

    def heads(projected: Any) -> Any:
        return projected.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)

    keys, values = heads(attention.key(normed)), heads(attention.value(normed))
    hidden, normed = hidden[:, :rows], normed[:, :rows]
    queries = heads(attention.query(normed))
    mixed = scaled_dot_product_attention(queries, keys, values, scale=attention.scaling)
    # Of the output modules only the products: they add the residual, or leave that to the caller.
    hidden = hidden + layer.attention.output.dense(mixed.transpose(1, 2).flatten(2)).float()
    wide = layer.intermediate(layer.layernorm_after(hidden).to(dtype))
    return hidden + layer.output.dense(wide).float()


def _known_layout(model: Any) -> bool:
    """Whether the model has the modules that the functions above call.

    That they mean what they did is shown by bits (exact) and by the canaries' cosines (bf16).
    """
    needed = (
        "embeddings.patch_embeddings.num_patches",
        "encoder.layer",
        "layernorm",
    )
    needed_of_layer = (
        "layernorm_before",
        "attention.attention.query",
        "attention.attention.key.weight",
        "attention.attention.value",
        "attention.attention.num_attention_heads",
        "attention.attention.scaling",
        "attention.output.dense",
        "layernorm_after",
        "intermediate",
        "output.dense",
    )
    return (
        all(_has(model, path) for path in needed)
        and len(model.encoder.layer) > 0
        and all(_has(layer, path) for layer in model.encoder.layer for path in needed_of_layer)
    )


def _has(module: Any, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(module, name):
            return False
        module = getattr(module, name)
    return True
