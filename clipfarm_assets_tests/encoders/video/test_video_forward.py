import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEModel

from clipfarm_assets.encoders.video import forward as video_forward
from clipfarm_assets.encoders.video.forward import VideoForward

SHAPES = {  # dim, heads, hidden, layers, frames, edge of a frame, final norm in the model
    "98 tokens": (96, 2, 384, 3, 4, 112, False),
    "98 tokens, no norm": (96, 4, 192, 2, 4, 112, True),
    "256 tokens, base width": (768, 12, 3072, 2, 8, 128, False),
    "588 tokens": (192, 3, 768, 2, 6, 224, False),
    "one layer": (128, 2, 256, 1, 4, 96, False),
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(shape, **settings):
    dim, heads, hidden, layers, frames, edge, mean_pooling = SHAPES[shape]
    torch.manual_seed(len(shape))
    config = VideoMAEConfig(
        hidden_size=dim,
        num_attention_heads=heads,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_frames=frames,
        image_size=edge,
        use_mean_pooling=mean_pooling,
        **settings,
    )
    model = VideoMAEModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms as of a trained model, not 0 and 1
            if parameter.ndim == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
    clips = torch.randn(3, 1, frames, 3, edge, edge)
    return model, clips


def of_the_model(model, clips, pooling="first_token"):
    with torch.no_grad():
        hidden = [model(pixel_values=clip).last_hidden_state for clip in clips]
    return [(one[:, 0] if pooling == "first_token" else one.mean(1)).numpy() for one in hidden]


def same_bits(found, expected):
    return all(
        one.numpy().tobytes() == other.tobytes() for one, other in zip(found, expected, strict=True)
    )


def cosine(found, expected):
    one, other = (np.asarray(a, dtype=np.float64).ravel() for a in (found, expected))
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.mark.parametrize("shape", SHAPES)
def test_pruned_bits_are_the_full_forwards(shape):
    model, clips = made(shape)
    forward = VideoForward(model, "exact", "first_token")
    assert forward.rows is None
    found = [forward(clip) for clip in clips]
    assert same_bits(found, of_the_model(model, clips))
    assert forward.rows == 16, forward.note
    assert "same bits" in forward.note


def test_the_last_layer_is_computed_for_few_rows_after_the_first_clip(monkeypatch):
    model, clips = made("588 tokens")
    rows = []
    model.encoder.layer[-1].output.dense.register_forward_hook(
        lambda _module, inputs, _output: rows.append(inputs[0].shape[1])
    )
    forward = VideoForward(model, "exact", "first_token")
    for clip in clips:
        forward(clip)
    assert rows == [588, 16, 16, 16]  # both ways on the first clip, then the pruned one alone


def with_other_bits_below(rows_needed, monkeypatch):
    """A machine whose kernels sum otherwise where they have few rows."""
    original = video_forward._layer

    def layer(layer, hidden, rows):
        output = original(layer, hidden, rows)
        return output * (1 + 2**-20) if rows is not None and rows < rows_needed else output

    monkeypatch.setattr(video_forward, "_layer", layer)


@pytest.mark.parametrize(("needed", "rows"), [(17, 512), (513, None)])
def test_more_rows_and_then_all_where_few_have_other_bits(monkeypatch, needed, rows):
    model, clips = made("588 tokens")
    with_other_bits_below(needed, monkeypatch)
    forward = VideoForward(model, "exact", "first_token")
    assert same_bits([forward(clip) for clip in clips], of_the_model(model, clips))
    assert forward.rows == rows
    assert ("fewer gave other bits" in forward.note) == (rows is None)


def test_no_more_rows_are_tried_than_there_are(monkeypatch):
    model, clips = made("98 tokens")
    with_other_bits_below(17, monkeypatch)
    forward = VideoForward(model, "exact", "first_token")
    assert same_bits([forward(clip) for clip in clips], of_the_model(model, clips))
    assert forward.rows is None


def test_many_threads_at_once_compare_once(monkeypatch):
    model, clips = made("98 tokens")
    expected = of_the_model(model, clips)
    calls = []
    full = model.forward
    monkeypatch.setattr(model, "forward", lambda **k: calls.append(1) or full(**k))
    forward = VideoForward(model, "exact", "first_token")
    start = threading.Barrier(4)

    def run(_):
        torch.set_num_threads(1)
        start.wait()
        return [forward(clip) for clip in clips]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(run, range(4)):
            assert same_bits(found, expected)
    assert len(calls) == 1


def test_values_that_are_not_numbers_equal_themselves():
    model, clips = made("98 tokens")
    with torch.no_grad():
        model.layernorm.bias.fill_(torch.nan)
    forward = VideoForward(model, "exact", "first_token")
    assert forward(clips[0]).isnan().all()
    assert forward.rows == 16


def test_the_mean_needs_all_rows():
    model, clips = made("98 tokens")
    forward = VideoForward(model, "exact", "mean")
    assert same_bits([forward(clip) for clip in clips], of_the_model(model, clips, "mean"))
    assert forward.rows is None
    assert "mean" in forward.note


@pytest.mark.parametrize("precision", ["exact", "bf16"])
def test_layers_of_another_layout_run_by_the_models_own_forward(precision):
    model, clips = made("98 tokens")
    expected = of_the_model(model, clips)
    model.encoder.layer[0].forward = lambda hidden, **_: hidden
    del model.encoder.layer[0].layernorm_before
    other = of_the_model(model, clips)
    forward = VideoForward(model, precision, "first_token")
    found = [forward(clip) for clip in clips]
    assert forward.rows is None
    assert "layout" in forward.note
    assert not same_bits(found, expected)
    if precision == "exact":
        assert same_bits(found, other)
    assert min(map(cosine, found, other)) > 0.999


@pytest.mark.parametrize("pooling", ["first_token", "mean"])
def test_bf16_is_near_exact_deterministic_and_float32(pooling):
    model, clips = made("256 tokens, base width")
    exact = of_the_model(model, clips, pooling)
    forward = VideoForward(model, "bf16", pooling)
    found = [forward(clip) for clip in clips]
    assert {one.dtype for one in found} == {torch.float32}
    assert all(cosine(*pair) >= 0.9999 for pair in zip(found, exact, strict=True))
    assert not same_bits(found, exact)
    again = [one.numpy() for one in reversed([forward(clip) for clip in reversed(clips)])]
    assert same_bits(found, again)


def test_bf16_leaves_the_exact_weights_alone():
    model, clips = made("98 tokens")
    expected = of_the_model(model, clips)
    VideoForward(model, "bf16", "first_token")(clips[0])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    forward = VideoForward(model, "exact", "first_token")
    assert same_bits([forward(clip) for clip in clips], expected)
