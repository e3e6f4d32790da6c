import numpy as np
import pytest
import torch

from clipfarm_assets.encoders.accelerator import (
    MAX_BATCH,
    batch_size,
    fixed_batches,
    largest_size,
    run_batches,
    stable_size,
)

CPU = torch.device("cpu")
ITEMS = list(np.random.default_rng(0).integers(0, 256, (7, 3, 5), dtype=np.uint8))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("count", [0, 1, 2, 6, 7])
def test_batches_have_one_shape_and_no_item_is_lost(count, size):
    batches = list(fixed_batches(ITEMS[:count], size))
    assert all(batch.shape == (size, 3, 5) for batch, _ in batches)
    assert all(1 <= real <= size for _, real in batches)
    kept = [item for batch, real in batches for item in batch[:real]]
    assert np.array_equal(kept, ITEMS[:count])
    for batch, real in batches:
        assert all(np.array_equal(item, batch[real - 1]) for item in batch[real:])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
def test_results_come_in_order_and_forwards_are_counted(size):
    shapes = []

    def forward(values):
        shapes.append(tuple(values.shape))
        return values.float().sum(dim=2)

    found = run_batches(ITEMS, forward, device=CPU, size=size)
    assert np.array_equal(found, [item.sum(axis=1) for item in ITEMS])
    assert found[0].dtype == np.float32
    assert shapes == [(size, 3, 5)] * -(-7 // size)
    assert run_batches([], forward, device=CPU, size=size) == []


def test_how_full_a_batch_is_changes_no_bit():
    weight = torch.tensor(np.random.default_rng(1).standard_normal((5, 64)), dtype=torch.float32)

    def forward(values):  # one matrix product over all rows: its sums may depend on its shape
        return (values.float() @ weight).flatten(1)

    whole = run_batches(ITEMS, forward, device=CPU, size=4)
    for count in range(1, 8):
        part = run_batches(ITEMS[:count], forward, device=CPU, size=4)
        assert [one.tobytes() for one in part] == [one.tobytes() for one in whole[:count]]


def test_the_size_follows_from_memory():
    gib = 2**30
    assert largest_size(gib, 2 * gib, 16 * gib) == 8
    assert largest_size(gib, 2 * gib, 16 * gib - 1) == 4
    assert largest_size(3 * gib, 4 * gib, 16 * gib) == 4  # 3 + 1 a further one
    assert largest_size(9 * gib, 18 * gib, 16 * gib) == 1, "one is always tried"
    assert largest_size(1, 1, 16 * gib) == MAX_BATCH


def test_a_place_in_a_batch_that_changes_bits_means_no_batches():
    def uneven(values):
        return values.float().sum(dim=2) + torch.arange(len(values)).view(-1, 1) * 2.0**-10

    assert stable_size(lambda values: values.float().sum(dim=2), ITEMS[0], CPU, 8) == 8
    assert stable_size(uneven, ITEMS[0], CPU, 8) == 1


def test_one_at_a_time_without_an_accelerator():
    assert batch_size(lambda values: values, ITEMS[0], CPU) == 1
