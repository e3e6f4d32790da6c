"""How many workers a run gets on which machine."""

import os

import pytest

from clipfarm_assets.pipelines.workers import Machine, WorkerOptions, plan_work

GIB = 2**30


def encode_workers(modality, cores, gib, device="cpu", **options):
    machine = Machine(cores, gib * GIB)
    return plan_work(WorkerOptions(**options), modality, machine, device).encode_workers


@pytest.mark.parametrize(
    ("modality", "cores", "gib", "expected"),
    [
        ("video", 2, 16, 2),
        ("audio", 2, 16, 2),
        ("audio", 16, 16, 4),  # a forward of 90 s wants 3 GiB, and a quarter is for all else
        ("audio", 16, 64, 16),
        ("text", 16, 4, 6),
        ("audio", 8, 1, 1),  # too little memory for one is no reason for none
    ],
)
def test_a_cpu_gets_an_item_a_core_as_far_as_memory_allows(modality, cores, gib, expected):
    assert encode_workers(modality, cores, gib) == expected


def test_longer_sounds_want_more_memory():
    assert encode_workers("audio", 16, 16, audio_seconds=300) == 1
    assert encode_workers("audio", 16, 16, audio_seconds=30) == 12


def test_depths_are_what_is_set():
    plan = plan_work(WorkerOptions(queue_depth=7), "video", Machine(2, 16 * GIB))
    assert (plan.fetch_ahead, plan.decode_ahead, plan.encode_ahead) == (7 * 8, 7 * 2, 7 * 2)


def test_items_of_several_threads_share_the_cores():
    assert encode_workers("video", 8, 64, threads=4) == 2
    assert encode_workers("video", 2, 64, threads=8) == 1


def test_one_thread_feeds_an_accelerator_and_all_cores_decode():
    plan = plan_work(WorkerOptions(), "audio", Machine(16, 8 * GIB), "cuda")
    assert (plan.encode_workers, plan.decode_workers, plan.on_accelerator) == (1, 16, True)


def test_what_is_set_is_taken_as_it_is():
    options = WorkerOptions(3, 5, 7, 11)
    for device in ("cpu", "cuda"):
        plan = plan_work(options, "audio", Machine(1, GIB), device)
        found = (plan.fetch_workers, plan.decode_workers, plan.encode_workers, plan.put_workers)
        assert found == (3, 5, 7, 11)


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_every_queue_holds_more_than_its_workers_have_in_hand(cores):
    plan = plan_work(WorkerOptions(), "video", Machine(cores, 512 * GIB))
    assert plan.fetch_ahead > plan.fetch_workers
    assert plan.decode_ahead > plan.decode_workers >= cores
    assert plan.encode_ahead > plan.encode_workers == cores


def test_a_containers_limits_are_the_machine(tmp_path):
    whole = Machine.here(tmp_path)
    assert whole.cores == len(os.sched_getaffinity(0))

    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert Machine.here(tmp_path) == Machine(1, GIB)

    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert Machine.here(tmp_path) == whole
