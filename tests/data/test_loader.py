"""Order of samples, resuming, and loader processes."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch
from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import Dataset, default_collate

from luab.data.images.imagenet import ImageNetAB
from luab.data.images.loader import EpochBatches, evaluation_loader, plain_errors, training_loader
from luab.errors import DataError, JobError


def test_every_image_at_most_once_and_the_last_batch_dropped():
    batches = list(EpochBatches(23, 5, seed=0, epoch=0))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    assert len({i for batch in batches for i in batch}) == 20
    assert len(EpochBatches(23, 5, 0, 0)) == 4 and len(EpochBatches(23, 5, 0, 0, start=3)) == 1


def test_order_depends_on_seed_and_epoch_alone():
    first = list(EpochBatches(40, 8, seed=1, epoch=2))
    assert first == list(EpochBatches(40, 8, seed=1, epoch=2))
    assert first != list(EpochBatches(40, 8, seed=1, epoch=3))
    assert first != list(EpochBatches(40, 8, seed=2, epoch=2))
    assert list(EpochBatches(40, 8, 1, 2, start=3)) == first[3:]
    assert list(EpochBatches(40, 8, 1, 2, start=5)) == []


def _dataset(toy_world, recipe):
    data = toy_world / "data"
    dataset = ImageNetAB(
        toy_world / "imagenet",
        data / "manifests" / "imagenet_train.parquet",
        data / "targets" / "imagenet" / "click.parquet",
        recipe,
        seed=5,
    )
    dataset.epoch = 1
    return dataset


def _batches(toy_world, workers, start=0, recipe=None):
    return list(training_loader(_dataset(toy_world, recipe), EpochBatches(30, 6, 5, 1, start), workers, pinned=False))


def test_loader_processes_stay_and_see_the_next_epoch(toy_world):
    dataset, batches = _dataset(toy_world, None), EpochBatches(30, 6, 5, 1, start=2)
    loader = training_loader(dataset, batches, 2, pinned=False)
    first = list(loader)
    children = {child.pid for child in psutil.Process().children()}
    dataset.epoch, batches.epoch, batches.start = 2, 2, 0
    second = list(loader)
    assert children == {child.pid for child in psutil.Process().children()} and len(children) >= 2
    fresh = _dataset(toy_world, None)
    for epoch, start, found in ((1, 2, first), (2, 0, second)):
        fresh.epoch = epoch
        expected = list(training_loader(fresh, EpochBatches(30, 6, 5, epoch, start), 0, pinned=False))
        assert len(found) == len(expected) == 5 - start
        for one, other in zip(found, expected, strict=True):
            assert all(torch.equal(part, other[name]) for name, part in one.items())


def test_repeated_augmentation_is_timms():
    """The same images as timm's ranks see them together, for the same permutation; copies of an image are apart."""
    order = np.random.default_rng((1, 2)).permutation(512)
    batches = list(EpochBatches(512, 64, 1, 2, repeats=3))
    timms = [list(RepeatAugSampler(range(512), 8, rank, shuffle=False)) for rank in range(8)]
    assert len(batches) == 8 and all(len(rank) == 64 for rank in timms)
    for k, batch in enumerate(batches):
        together = [row for rank in timms for row in rank[8 * k : 8 * k + 8]]
        assert sorted(i for i, _ in batch) == sorted(order[together].tolist())
        assert len(set(batch)) == 64 and {number for _, number in batch} == {0, 1, 2}
        for share in range(8):
            part = batch[8 * share : 8 * share + 8]
            assert len({i for i, _ in part}) >= 7  # one share has the border between first and second views
    everything = [pair for batch in batches for pair in batch]
    assert len(set(everything)) == 512 and len({i for i, _ in everything}) == 171  # 512 / 3, rounded up


def test_repeated_augmentation_resumes_and_is_shared():
    whole = list(EpochBatches(40, 8, 1, 2, repeats=3))
    assert whole != list(EpochBatches(40, 8, 1, 3, repeats=3))
    assert list(EpochBatches(40, 8, 1, 2, 3, repeats=3)) == whole[3:]
    parts = [list(EpochBatches(40, 8, 1, 2, share=(r, 4), repeats=3)) for r in range(4)]
    assert [[pair for part in parts for pair in part[k]] for k in range(5)] == whole
    plain = list(EpochBatches(40, 8, 1, 2))
    assert [i for i, _ in next(iter(EpochBatches(40, 8, 1, 2, repeats=1000)))] == [plain[0][0]] * 8


@pytest.mark.parametrize("workers", [0, 2])
def test_views_of_an_image_differ_and_depend_on_nothing_else(toy_world, toy_study, workers):
    recipe = toy_study(recipe={"auto_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.5}).recipe("test_resnet")
    dataset = _dataset(toy_world, recipe)
    batches = EpochBatches(30, 6, 5, 1, repeats=3)
    images = [parts[0] for parts in map(_parts, training_loader(dataset, batches, workers, pinned=False))]
    pairs = [pair for batch in batches for pair in batch]
    views = dict(zip(pairs, torch.cat(images), strict=True))
    for (i, number), pixels in reversed(views.items()):
        assert torch.equal(pixels, dataset.view((i, number)).pixels)
        assert number == 0 or not torch.equal(pixels, views[i, 0])
        assert number > 0 or torch.equal(pixels, dataset.view(i).pixels)


def _parts(batch):
    return list(batch.values()) if isinstance(batch, dict) else batch


@pytest.mark.parametrize(("workers", "start"), [(1, 0), (2, 0), (0, 3), (2, 3)])
def test_samples_are_equal_for_any_number_of_workers_and_any_start(toy_world, toy_study, workers, start):
    recipe = toy_study(recipe={"auto_augment": "3a", "color_jitter": 0.4}).recipe("test_resnet")
    expected = _batches(toy_world, 0, recipe=recipe)[start:]
    found = _batches(toy_world, workers, start, recipe)
    assert len(found) == len(expected) == 5 - start
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys() and all(torch.equal(part, theirs[name]) for name, part in ours.items())


def test_batches_equal_torchs_own_collation(toy_world, toy_study):
    recipe = toy_study().recipe("test_resnet")
    ours = _batches(toy_world, 0, recipe=recipe)[0]
    dataset = _dataset(toy_world, recipe)
    order = next(iter(EpochBatches(30, 6, 5, 1)))
    theirs = default_collate([dataset[i] for i in order])
    types = {"images": torch.uint8, "labels": torch.int64, "points": torch.float32, "weights": torch.float64}
    assert {name: part.dtype for name, part in ours.items()} == types == {n: part.dtype for n, part in theirs.items()}
    assert all(torch.equal(part, theirs[name]) for name, part in ours.items())


@pytest.mark.parametrize(("batch_size", "ahead"), [(32, 4), (256, 4), (512, 2), (1024, 1), (4096, 1)])
def test_large_batches_are_prefetched_less(batch_size, ahead):
    loader = training_loader(_Faulty(None), EpochBatches(8192, batch_size, 0, 0), 2, pinned=False)
    assert loader.prefetch_factor == ahead


def test_loading_leaves_the_random_state_of_the_process_alone(toy_world):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    _batches(toy_world, 0)
    _batches(toy_world, 1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


class _Faulty(Dataset):
    """Six numbers; reading one of them raises, kills the process, or sends it signals."""

    def __init__(self, fault):
        self.fault = fault

    def __len__(self):
        return 6

    def __getitem__(self, i):
        if i == 4 and self.fault == "data":
            try:
                raise OSError("bytes are gone")
            except OSError as error:
                raise DataError("four.JPEG (row 4): expected an image.\nCopy it again.") from error
        if i == 4 and self.fault == "bug":
            raise RuntimeError("shapes differ: 3 and 4")
        if i == 4 and self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if i == 4 and self.fault == "warned":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGUSR2)
        return i


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_error_keeps_only_its_own_message(workers):
    with pytest.raises(DataError) as caught, plain_errors():
        list(evaluation_loader(_Faulty("data"), 2, workers, pinned=False))
    assert str(caught.value) == "four.JPEG (row 4): expected an image.\nCopy it again."


def test_a_killed_loader_process_is_a_job_error():
    with pytest.raises(JobError, match="loader process died"), plain_errors():
        list(evaluation_loader(_Faulty("killed"), 2, 1, pinned=False))


def test_an_error_in_a_loader_process_is_reported_with_its_reason():
    with pytest.raises(JobError) as caught, plain_errors():
        list(evaluation_loader(_Faulty("bug"), 2, 1, pinned=False))
    message = str(caught.value)
    assert message.startswith("A loader process failed (RuntimeError: shapes differ: 3 and 4). If this does not name")
    assert "died" not in message and "memory" not in message and "Traceback" not in message


SMALL_SHARED_MEMORY = """
import subprocess, sys
import torch
from luab.data.images.loader import EpochBatches, plain_errors, training_loader
from luab.errors import LuabError
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", "/dev/shm"], check=True)
class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, i):
        return {"images": torch.zeros(3, 224, 224, dtype=torch.uint8), "labels": i}
try:
    with plain_errors():
        for _ in training_loader(Images(), EpochBatches(64, 32, 0, 0), 2, False):
            pass
except LuabError as error:
    print(type(error).__name__, error)
"""


def _own_mounts():
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.faults
@pytest.mark.skipif(not _own_mounts(), reason="needs permission to mount a small disk")
def test_full_shared_memory_is_named():
    command = ["unshare", "-rm", sys.executable, "-c", SMALL_SHARED_MEMORY]
    said = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    assert said.stdout.startswith("JobError A loader process could not use shared memory (RuntimeError: "), said
    assert "No space left on device" in said.stdout and "--shm-size=8g" in said.stdout, said
    assert "lower compute.workers" in said.stdout and "died" not in said.stdout


def test_loader_processes_ignore_signals():
    found = list(evaluation_loader(_Faulty("warned"), 2, 1, pinned=False))
    assert torch.cat(found).tolist() == [0, 1, 2, 3, 4, 5]


def test_other_errors_stay_unchanged():
    with pytest.raises(RuntimeError, match="shapes"), plain_errors():
        raise RuntimeError("shapes differ")
