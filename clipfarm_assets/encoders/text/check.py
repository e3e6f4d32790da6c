"""Whether a sentence transformer's texts may share forwards, on this machine.

Packing is used only where it was seen to give what the model gives one text at a time.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from clipfarm_assets.encoders.text.forward import Linear, PackedBert
from clipfarm_assets.encoders.text.packing import LEAST_ROWS, ROWS_STEP, PackShape
from clipfarm_assets.encoders.text.tokens import TextTokenizer

_LANES: Final = 64
"""Matrix widths must be multiples: then every text's first element is aligned alike, and vector
instructions divide elements alike, wherever the text lies in a pack."""

_PROBES: Final = (
    "",
    "a",
    "Two dogs [SEP] run,\tand 1 \u00e9t\u00e9 \u4f60\u597d \U0001f3ac!",
    "b " * 30,
)
_TOLERANCE: Final = 1e-5
"""Far above float32's rounding in such a model (2e-7), far below what another model would give."""


def unknown_form(model: Any, max_tokens: int) -> str | None:
    """Why `PackedBert` is not made for this ``SentenceTransformer``, or None if it is."""
    return _of_another_form(model) or _of_other_settings(model, max_tokens)


def _of_another_form(model: Any) -> str | None:
    """Why the modules are not those of `PackedBert`, compared by class, not by subclass."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertModel

    modules = list(model)
    if [type(module) for module in modules] != [Transformer, Pooling, Normalize]:
        names = ", ".join(type(module).__name__ for module in modules)
        return f"its modules are {names}, not Transformer, Pooling, Normalize"
    transformer, pooling, normalize = modules
    if type(transformer.model) is not BertModel:
        return f"its transformer is {type(transformer.model).__name__}, not BertModel"
    if pooling.pooling_mode != "mean" or not pooling.include_prompt:
        return f"it pools by {pooling.pooling_mode}, not by the mean of all tokens"
    ends = (normalize.module_input_name, normalize.module_output_name)
    if ends != ("sentence_embedding", "sentence_embedding"):
        return f"it normalises {ends[0]} to {ends[1]}, not the sentence embedding"
    return None


def _of_other_settings(model: Any, max_tokens: int) -> str | None:
    """Why the parts are set up in a way that `PackedBert` does not know."""
    config = model[0].model.config
    if config.is_decoder or config.add_cross_attention:
        return "its BERT is a decoder"
    if max_tokens > config.max_position_embeddings:
        return f"{max_tokens} tokens exceed its {config.max_position_embeddings} positions"
    widths = (config.hidden_size, config.intermediate_size)
    if any(width % _LANES for width in widths):
        return f"its widths {widths} are not multiples of {_LANES}"
    if model.default_prompt_name is not None or model.truncate_dim is not None:
        return "it puts a prompt before texts or truncates vectors"
    if not getattr(model.tokenizer, "is_fast", False):
        return f"its tokenizer {type(model.tokenizer).__name__} is not a fast one"
    return None


def difference(model: Any, tokenizer: TextTokenizer, max_tokens: int) -> str | None:
    """What differs between a model's own tokens or vectors and ours, tried on a few texts."""
    long = "c " * (2 * max_tokens)
    for text, found in zip((*_PROBES, long), tokenizer((*_PROBES, long)), strict=True):
        features = model.preprocess([text])
        if found.chunks[0] != tuple(features["input_ids"][0].tolist()):
            return f"its tokens of {text[:40]!r} are other ones"
        if features.get("token_type_ids", features["input_ids"][:, :0]).any():
            return "its tokenizer gives single texts another type than 0"
    forward = PackedBert(model[0].model, "exact", PackShape(0))
    vectors = forward([found.chunks[0] for found in tokenizer(_PROBES)])
    expected = [model.encode([text], show_progress_bar=False)[0] for text in _PROBES]
    largest = float(np.abs(np.stack(vectors) - np.stack(expected)).max())
    if not largest <= _TOLERANCE:
        return f"its vectors of short texts are other ones, by up to {largest:g}"
    return None


def rows_stand_alone(linears: Iterable[Linear], shape: PackShape, threads: int) -> bool:
    """Whether a row's bits are the same among any other rows, in packs of `shape`.

    Tried on one linear layer of each size: with a fixed number of rows the same rows at other
    places, else in products of the other sizes that occur, too. The library documents no such
    thing; it follows from how it divides a product, hence from the machine, the number of threads
    and the sizes.

    Args:
        linears: A model's linear layers.
        shape: The packs that are to be used; its budget must be at least 256.
        threads: How many threads of torch are to be used.
    """
    import torch

    sizes = {tuple(linear.weight.shape): linear for linear in linears}
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            return all(_alone(linear, shape) for linear in sizes.values())
    finally:
        torch.set_num_threads(usual)


def _alone(linear: Linear, shape: PackShape) -> bool:
    import torch

    size = shape.rows(shape.budget)
    random = np.random.default_rng(0).standard_normal((size, linear.weight.shape[1]))
    rows = torch.from_numpy(random.astype(np.float32)).to(linear.weight.device)
    whole = linear(rows)
    if shape.fixed:
        steps = (1, LEAST_ROWS + 1, size // 2 + 3)
        return all(torch.equal(linear(rows.roll(step, 0)).roll(-step, 0), whole) for step in steps)
    counts = (shape.rows(tokens) for tokens in (1, ROWS_STEP + 1, size // 2, size - ROWS_STEP))
    parts = ((min(3 * number, size - count), count) for number, count in enumerate(counts))
    return all(
        torch.equal(linear(rows[start : start + count]), whole[start : start + count])
        for start, count in parts
    )
