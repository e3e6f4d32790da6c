import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipfarm_assets.contracts.statuses import STRATEGIES
from clipfarm_assets.fusion.static import fuse

F32 = np.float32


def plain_row(strategy, v, a, t, m, append_mask):
    """The contract's formulas (section 4.1) for one clip, read aloud."""
    if strategy == "concat":
        base = [*v, *a, *t]
    else:
        dim = max(len(v), len(a), len(t))
        v, a, t = (np.pad(vector, (0, dim - len(vector))) for vector in (v, a, t))
        base = v + a + t if strategy == "sum_pool" else np.maximum(np.maximum(v, a), t)
    return np.array([*base, F32(m)] if append_mask else [*base], dtype=F32)


def plain(strategy, video, audio, text, present, append_mask=True):
    rows = zip(video, audio, text, present, strict=True)
    return np.stack([plain_row(strategy, v, a, t, m, append_mask) for v, a, t, m in rows])


def batch(dims=(5, 3, 4), n=7, seed=0):
    rng = np.random.default_rng(seed)
    video, audio, text = (rng.standard_normal((n, dim)).astype(F32) for dim in dims)
    present = np.arange(n) % 3 != 0
    text[~present] = 0
    return video, audio, text, present


@pytest.mark.parametrize("append_mask", [True, False])
@pytest.mark.parametrize(
    "dims", [(5, 3, 4), (3, 5, 4), (3, 4, 5), (2, 5, 5), (4, 4, 4), (1, 9, 1), (9, 1, 1)]
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_the_formulas_one_clip_at_a_time(strategy, dims, append_mask):
    inputs = batch(dims)
    fused = fuse(strategy, *inputs, append_mask=append_mask)
    expected = plain(strategy, *inputs, append_mask)
    assert fused.dtype == F32
    assert fused.flags.c_contiguous
    assert fused.shape == expected.shape
    assert fused.tobytes() == expected.tobytes()


def test_by_hand():
    v, a = np.array([[-1, 2, -3]], F32), np.array([[-4, 1]], F32)
    t, absent = np.array([[-5]], F32), np.zeros((1, 1), F32)
    yes, no = np.array([True]), np.array([False])
    assert fuse("concat", v, a, t, yes).tolist() == [[-1, 2, -3, -4, 1, -5, 1]]
    assert fuse("sum_pool", v, a, t, yes).tolist() == [[-10, 3, -3, 1]]
    # Negative everywhere but where a padding zero takes part.
    assert fuse("max_pool", v, a, t, yes).tolist() == [[-1, 2, 0, 1]]
    assert fuse("max_pool", v, a, absent, no).tolist() == [[0, 2, 0, 0]]
    assert fuse("concat", v, a, absent, no).tolist() == [[-1, 2, -3, -4, 1, 0, 0]]
    assert fuse("sum_pool", v, a, t, yes, append_mask=False).tolist() == [[-10, 3, -3]]


@pytest.mark.parametrize(
    ("strategy", "append_mask", "dim"),
    [
        ("concat", True, 2305),
        ("sum_pool", True, 769),
        ("max_pool", True, 769),
        ("concat", False, 2304),
        ("sum_pool", False, 768),
        ("max_pool", False, 768),
    ],
)
def test_dimensions_of_the_default_models(strategy, append_mask, dim):
    fused = fuse(strategy, *batch((768, 768, 768), n=2), append_mask=append_mask)
    assert fused.shape == (2, dim)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_padding_zeros_win_over_negative_values_in_max_pool_only(strategy):
    video = -np.ones((2, 5), F32)
    audio, text = -np.ones((2, 3), F32), -np.ones((2, 4), F32)
    fused = fuse(strategy, video, audio, text, np.array([True, True]), append_mask=False)
    expected = {
        "concat": [-1] * 12,
        "sum_pool": [-3, -3, -3, -2, -1],
        "max_pool": [-1, -1, -1, 0, 0],
    }
    assert fused.tolist() == [expected[strategy]] * 2


# Every finite float32, subnormals and both zeros among them, and sums that overflow.
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def clips(draw, elements=FINITE):
    n = draw(st.integers(1, 5))
    video, audio, text = (
        draw(arrays(F32, (n, draw(st.integers(1, 9))), elements=elements)) for _ in range(3)
    )
    present = draw(arrays(np.bool_, n))
    text[~present] = 0
    return video, audio, text, present


@settings(max_examples=50, deadline=None)
@given(inputs=clips(), strategy=st.sampled_from(STRATEGIES), append_mask=st.booleans())
def test_any_finite_values_and_dimensions(inputs, strategy, append_mask):
    with np.errstate(over="ignore", invalid="ignore"):
        fused = fuse(strategy, *inputs, append_mask=append_mask)
        expected = plain(strategy, *inputs, append_mask)
    both_nan = np.isnan(fused) & np.isnan(expected)  # inf - inf: the bits of a NaN are the CPU's
    fused[both_nan] = expected[both_nan] = 0
    assert fused.tobytes() == expected.tobytes()


@settings(max_examples=30, deadline=None)
@given(
    inputs=clips(st.sampled_from([0.0, -0.0, 1.0, -1.0])),
    strategy=st.sampled_from(STRATEGIES),
    data=st.data(),
)
def test_a_row_depends_on_that_row_alone(inputs, strategy, data):
    together = fuse(strategy, *inputs)
    picks = data.draw(st.lists(st.integers(0, len(together) - 1), min_size=1, max_size=9))
    shuffled = fuse(strategy, *(array[picks] for array in inputs))
    assert shuffled.tobytes() == together[picks].tobytes()
    for k in range(len(together)):
        alone = fuse(strategy, *(array[k : k + 1] for array in inputs))
        assert alone.tobytes() == together[k].tobytes()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_are_independent_at_the_default_size(strategy):
    inputs = batch((768, 768, 768), n=33)
    together = fuse(strategy, *inputs)
    for begin, end in ((0, 1), (1, 4), (4, 12), (12, 33)):
        part = fuse(strategy, *(array[begin:end] for array in inputs))
        assert part.tobytes() == together[begin:end].tobytes()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_layout_of_the_inputs_does_not_matter(strategy):
    video, audio, text, present = batch((5, 3, 4))
    wide = np.zeros((14, 10), F32)
    wide[::2, ::2] = video
    spread = (wide[::2, ::2], np.asfortranarray(audio), text[::-1][::-1], present)
    assert (
        fuse(strategy, *spread).tobytes() == fuse(strategy, video, audio, text, present).tobytes()
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_inputs_are_left_as_they_were_and_not_shared(strategy):
    inputs = batch()
    before = [array.copy() for array in inputs]
    fused = fuse(strategy, *inputs)
    fused[:] = 7
    assert all(np.array_equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_padding_a_negative_zero_gives_the_zero_that_adding_zero_gives():
    video, short = np.full((1, 3), -0.0, F32), np.full((1, 1), -0.0, F32)
    yes = np.array([True])
    summed = fuse("sum_pool", video, short, short, yes, append_mask=False)
    largest = fuse("max_pool", video, short, short, yes, append_mask=False)
    # -0.0 + -0.0 keeps its sign; beside a padding zero the sign is gone.
    assert np.signbit(summed).tolist() == [[True, False, False]]
    assert np.signbit(largest).tolist() == [[True, False, False]]
    # concat moves bits and computes nothing.
    joined = fuse("concat", video, short, short, yes, append_mask=False)
    assert np.signbit(joined).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_not_a_number_stays_visible_in_its_own_place(strategy):
    video, audio, text, present = batch((5, 3, 4))
    present[:] = True
    video[1, 4] = audio[2, 0] = text[3, 3] = np.nan
    with np.errstate(invalid="ignore"):
        fused = fuse(strategy, video, audio, text, present)
    places = {
        "concat": [(1, 4), (2, 5), (3, 11)],
        "sum_pool": [(1, 4), (2, 0), (3, 3)],
        "max_pool": [(1, 4), (2, 0), (3, 3)],
    }
    assert list(zip(*np.nonzero(np.isnan(fused)), strict=True)) == places[strategy]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_clips_give_no_rows_of_the_right_length(strategy):
    fused = fuse(strategy, *batch(n=0))
    assert fused.shape == (0, {"concat": 13}.get(strategy, 6))


@pytest.mark.parametrize("value", [1.0, np.nan, -np.inf])
def test_refuses_a_placeholder_that_is_not_zero(value):
    video, audio, text, present = batch()
    text[0, 2] = value  # row 0 has no text
    with pytest.raises(ValueError, match="without text must have a zero text vector"):
        fuse("concat", video, audio, text, present)


def test_refuses_unequal_row_counts():
    video, audio, text, present = batch()
    with pytest.raises(ValueError, match="found 7 video, 6 audio, 7 text rows and 7 mask values"):
        fuse("sum_pool", video, audio[:6], text, present)
    with pytest.raises(ValueError, match="7 text rows and 1 mask values"):
        fuse("sum_pool", video, audio, text, present[:1])


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (0, lambda a: a.astype(np.float64), r"video must be float32 of 2 axes: found float64"),
        (1, lambda a: a.astype(np.float16), r"audio must be float32 of 2 axes: found float16"),
        (2, lambda a: a.astype(">f4"), r"text must be float32 of 2 axes: found >f4"),
        (0, lambda a: a[0], r"video must be float32 of 2 axes: found float32 \(5,\)"),
        (2, lambda a: a[:, :, None], r"text must be float32 of 2 axes: found float32 \(7, 4, 1\)"),
        # With whole numbers ~mask would pick other rows instead of the absent ones.
        (3, lambda a: a.astype(np.int64), r"text_present must be bool of 1 axes: found int64"),
        (3, lambda a: a[:, None], r"text_present must be bool of 1 axes: found bool \(7, 1\)"),
    ],
)
def test_refuses_inputs_of_another_type_or_shape(position, change, message):
    inputs = list(batch())
    inputs[position] = change(inputs[position])
    with pytest.raises(ValueError, match=message):
        fuse("concat", *inputs)


def test_refuses_an_unknown_strategy():
    with pytest.raises(ValueError, match=r"'mean'.*concat, sum_pool, max_pool"):
        fuse("mean", *batch())


@pytest.mark.parametrize("append_mask", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_given_place_gets_the_same_rows_and_nothing_around_it_changes(strategy, append_mask):
    inputs = batch()
    expected = fuse(strategy, *inputs, append_mask=append_mask)
    room = np.full((9, expected.shape[1]), np.nan, np.float32)
    fused = fuse(strategy, *inputs, append_mask=append_mask, out=room[1:-1])
    assert np.shares_memory(fused, room)
    assert room[1:-1].tobytes() == expected.tobytes()
    assert np.isnan(room[[0, -1]]).all()


@pytest.mark.parametrize(("shape", "dtype"), [((6, 13), "f4"), ((7, 12), "f4"), ((7, 13), "f8")])
def test_refuses_a_place_of_another_shape_or_type(shape, dtype):
    with pytest.raises(ValueError, match=r"out must be float32 \(7, 13\): found float"):
        fuse("concat", *batch(), out=np.empty(shape, dtype))
