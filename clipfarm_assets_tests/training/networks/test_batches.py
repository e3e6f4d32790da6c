import itertools

import pytest
import torch

from clipfarm_assets.training.networks.batches import (
    InMemory,
    StreamChanged,
    StreamedBatches,
    stack_rows,
    tensors_hash,
)
from clipfarm_assets.training.networks.fit import fit_batches
from clipfarm_assets_tests.training.networks.fit_cases import (
    CONFIG,
    OBJECTIVE,
    TRAIN_X,
    TRAIN_Y,
    bits,
    classifier,
    in_memory,
    streamed,
    val_batches,
)


def order(seed=3):
    return torch.Generator().manual_seed(seed)


def numbers(count, buffer, batch_size=4, **options):
    """Rows 0, 1, 2, ..., each its own input and target."""
    return StreamedBatches(
        lambda _: (({"x": torch.tensor(i)}, torch.tensor(i)) for i in range(count)),
        options.pop("rows", count),
        batch_size,
        shuffle_buffer=buffer,
        **options,
    )


def drawn(batches, seed=3):
    return [target.tolist() for _, target in batches.epoch(order(seed))]


def same(one, other):
    pairs = list(zip(one, other, strict=True))
    assert pairs
    for (inputs, target), (other_inputs, other_target) in pairs:
        assert inputs.keys() == other_inputs.keys()
        assert all(torch.equal(inputs[key], other_inputs[key]) for key in inputs)
        assert torch.equal(target, other_target)


@pytest.mark.parametrize("shuffle", [True, False])
def test_in_memory_gives_every_row_once(shuffle):
    batches = InMemory({"x": torch.arange(10) * 2}, torch.arange(10), 4, shuffle=shuffle)
    found = list(batches.epoch(order()))
    assert [len(target) for _, target in found] == [4, 4, 2]
    targets = torch.cat([target for _, target in found])
    assert torch.equal(torch.cat([inputs["x"] for inputs, _ in found]), targets * 2)
    assert sorted(targets.tolist()) == list(range(10))
    assert (targets.tolist() == list(range(10))) is not shuffle


def test_epochs_of_one_generator_differ():
    generator = order()
    batches = in_memory()
    first, second = (torch.cat([y for _, y in batches.epoch(generator)]) for _ in range(2))
    assert not torch.equal(first, second)
    assert drawn(batches) == drawn(batches) != drawn(batches, seed=4)


@pytest.mark.parametrize("buffer", [len(TRAIN_Y), len(TRAIN_Y) + 50])
def test_a_stream_with_a_buffer_of_all_rows_is_as_in_memory(buffer):
    ours, memory = order(), order()
    for _ in range(3):
        same(streamed(buffer).epoch(ours), in_memory().epoch(memory))
    assert torch.equal(ours.get_state(), memory.get_state())


def test_a_stream_without_a_buffer_is_as_in_memory_in_order():
    same(streamed(0).epoch(order()), in_memory(shuffle=False).epoch(order()))


@pytest.mark.parametrize(("buffer", "shuffle"), [(len(TRAIN_Y), True), (0, False)])
def test_a_fit_of_a_stream_is_the_fit_in_memory(buffer, shuffle):
    results = []
    for batches in (streamed(buffer), in_memory(shuffle=shuffle)):
        network = classifier()
        curve = fit_batches(
            network,
            batches,
            val_batches(),
            CONFIG,
            5,
            say=[].append,
            name="fit",
            objective=OBJECTIVE,
        )
        results.append((curve, bits(network)))
    assert results[0] == results[1]


@pytest.mark.parametrize("buffer", [1, 2, 7, 19, 20])
def test_a_buffer_mixes_and_loses_nothing(buffer):
    batches = numbers(20, buffer)
    found = drawn(batches)
    assert [len(batch) for batch in found] == [4] * 5
    flat = list(itertools.chain(*found))
    assert sorted(flat) == list(range(20))
    assert (flat == list(range(20))) is (buffer == 1)
    assert found == drawn(batches)
    # A row leaves the buffer at the earliest when it is full, and no row can come before its time.
    assert all(value <= place + buffer for place, value in enumerate(flat))


def test_a_buffer_is_bounded_by_bytes_too_and_loses_nothing():
    """Of images of 1 to 20 bytes no more than 50 are held, however many rows the buffer has."""
    read = []

    def rows(_):
        for i in range(200):
            read.append(1 + i * 7 % 20)
            yield {"x": torch.tensor(i)}, torch.tensor(i)

    def size(row):
        return 1 + int(row[1]) * 7 % 20

    batches = StreamedBatches(
        rows, 200, 1, shuffle_buffer=60, shuffle_bytes=50, size_of=size, source="images"
    )
    given, most = [], 0
    for _, target in batches.epoch(order()):
        most = max(most, sum(read) - sum(1 + i * 7 % 20 for i in given))
        given += target.tolist()
    assert sorted(given) == list(range(200)) != given
    assert 50 < most <= 50 + 20, "one row more is in hand"
    read.clear()
    assert [batch[0] for batch in drawn(batches)] == given
    assert "50 bytes" in batches.identity()


def test_a_row_beyond_the_bytes_of_a_buffer_is_given_all_the_same():
    batches = numbers(9, 4, shuffle_bytes=10, size_of=lambda _row: 11)
    assert sorted(itertools.chain(*drawn(batches))) == list(range(9))


def test_bytes_that_suffice_change_nothing():
    bounded = numbers(20, 7, shuffle_bytes=1000, size_of=lambda _row: 10)
    assert drawn(bounded) == drawn(numbers(20, 7))


def test_every_row_may_come_first_of_a_buffer():
    first = {drawn(numbers(6, 6), seed)[0][0] for seed in range(60)}
    assert first == set(range(6))


@pytest.mark.parametrize(("buffer", "batch_size"), [(0, 4), (5, 4), (9, 3)])
def test_no_more_rows_are_held_than_said(buffer, batch_size):
    """What was read and not yet given away never exceeds the buffer and a batch."""
    read = 0

    def rows(_):
        nonlocal read
        for i in range(100):
            read += 1
            yield {"x": torch.tensor(i)}, torch.tensor(i)

    given, most = 0, 0
    for _, target in StreamedBatches(rows, 100, batch_size, shuffle_buffer=buffer).epoch(order()):
        most = max(most, read - given)
        given += len(target)
    assert given == 100
    assert most == buffer + batch_size


def test_a_source_may_draw_its_own_order():
    def rows(generator):
        for i in torch.randperm(8, generator=generator).tolist():
            yield {"x": torch.tensor(i)}, torch.tensor(i)

    batches = StreamedBatches(rows, 8, 8)
    assert sorted(drawn(batches)[0]) == list(range(8)) != drawn(batches)[0]
    assert drawn(batches) == drawn(batches) != drawn(batches, seed=4)


def test_rows_of_any_kind_are_collated():
    """Texts become tensors a batch at a time, as wide as the longest of the batch."""
    texts = ["a", "bcd", "ef", "g"]

    def collate(rows):
        width = max(map(len, rows))
        ids = torch.tensor([[ord(c) for c in row.ljust(width)] for row in rows])
        return {"ids": ids}, torch.tensor([len(row) for row in rows])

    batches = StreamedBatches(lambda _: texts, 4, 2, collate=collate)
    found = list(batches.epoch(order()))
    assert [inputs["ids"].shape for inputs, _ in found] == [(2, 3), (2, 2)]
    assert [target.tolist() for _, target in found] == [[1, 3], [2, 1]]


@pytest.mark.parametrize("buffer", [0, 3, 100])
@pytest.mark.parametrize(
    ("given", "said", "found"), [(9, 10, "gave 9 rows"), (0, 1, "gave 0 rows")]
)
def test_a_stream_that_ends_early_is_an_error(buffer, given, said, found):
    with pytest.raises(StreamChanged, match=rf"the val part {found}, expected {said}"):
        drawn(numbers(given, buffer, rows=said, part="val"))


@pytest.mark.parametrize("buffer", [0, 3, 100])
def test_a_stream_that_goes_on_is_an_error(buffer):
    with pytest.raises(StreamChanged, match="the train part gave more, expected 9"):
        drawn(numbers(10, buffer, rows=9))


def test_an_endless_stream_ends():
    endless = (({"x": torch.tensor(0)}, torch.tensor(0)) for _ in itertools.count())
    with pytest.raises(StreamChanged, match="gave more"):
        drawn(StreamedBatches(lambda _: endless, 5, 2, shuffle_buffer=3))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: in_memory(x=TRAIN_X[:0], y=TRAIN_Y[:0]), "the train part has no rows"),
        (
            lambda: in_memory(y=TRAIN_Y[:-1]),
            "has 69 targets and inputs of other lengths: {'x': 70}",
        ),
        (lambda: in_memory(batch_size=0), "has one row or more, not 0"),
        (lambda: numbers(0, 0), "the train part has no rows"),
        (lambda: numbers(5, -1), r"shuffle_buffer must be 0 \(in order\) or more, not -1"),
        (lambda: numbers(5, 0, batch_size=-2), "has one row or more, not -2"),
    ],
)
def test_sizes_that_make_no_sense(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_identity_of_rows_in_memory():
    there = in_memory().identity()
    assert there == in_memory(x=TRAIN_X.clone(), y=TRAIN_Y.clone()).identity()
    changed = TRAIN_X.clone()
    changed[3, 1] = torch.nextafter(changed[3, 1], torch.tensor(9.0))
    flipped = TRAIN_Y.clone()
    flipped[7] = 1 - flipped[7]
    others = [
        in_memory(x=changed),
        in_memory(y=flipped),
        in_memory(x=TRAIN_X.flip(0), y=TRAIN_Y.flip(0)),
        in_memory(batch_size=17),
        in_memory(shuffle=False),
        InMemory({"z": TRAIN_X}, TRAIN_Y, CONFIG.batch_size),
    ]
    assert len({there, *(batches.identity() for batches in others)}) == len(others) + 1


def test_identity_of_a_stream():
    there = streamed(3).identity()
    assert there.startswith("the train rows, 70 rows")
    assert len({there, streamed(4).identity(), streamed(3, source="others").identity()}) == 3
    with pytest.raises(ValueError, match="the train part is a stream without a `source`"):
        streamed(3, source="").identity()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(()),
        torch.zeros(0, 3),
        torch.ones(2, dtype=torch.bool),
        torch.ones(2, dtype=torch.bfloat16),
        torch.full((2,), torch.nan),
        torch.arange(6.0).reshape(2, 3).T,
    ],
)
def test_tensors_of_all_kinds_are_hashed(tensor):
    there = tensors_hash({"a": tensor})
    assert there == tensors_hash({"a": tensor.clone()})
    assert there != tensors_hash({"b": tensor})
    assert there != tensors_hash({"a": tensor[None]})
    assert there != tensors_hash({"a": tensor.to(torch.float64)})


def test_stacked_rows():
    rows = [({"x": torch.ones(2) * i, "y": torch.tensor(i)}, torch.tensor(-i)) for i in (1, 2)]
    inputs, target = stack_rows(rows)
    assert torch.equal(inputs["x"], torch.tensor([[1.0, 1], [2, 2]]))
    assert torch.equal(inputs["y"], torch.tensor([1, 2]))
    assert torch.equal(target, torch.tensor([-1, -2]))
