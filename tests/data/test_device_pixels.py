"""Pixels whose views are computed on the device: sent with each batch or copied once, they give the batches that the file gives."""

import pickle

import numpy as np
import pytest
import torch
from no_waiting import NoWaiting

from pcam_ssl.data.batches import PseudoPart, TrainStream, UnlabelledStream, load
from pcam_ssl.data.pixels import DevicePixels, Pixels
from pcam_ssl.data.plans import Shuffled
from pcam_ssl.data.tensor_views import pack
from pcam_ssl.data.views import Views

CPU = torch.device("cpu")
N = 40


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    path = tmp_path_factory.mktemp("pixels") / "pixels.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (N, 16, 16, 3), dtype=np.uint8))
    return Pixels(path)


@pytest.fixture
def sent(pixels):
    return DevicePixels(pixels, CPU)


@pytest.fixture
def copied(pixels):
    device = DevicePixels(pixels, CPU)
    device.copy(np.arange(N - 1, 4, -1))
    return device


def stream(pixels, rank=0, size=1, policy="strong", noise="strong") -> UnlabelledStream:
    """20 labelled patches, 8 of which have pseudo-labels, and a pool of 11."""
    pseudo = PseudoPart(12, np.ones(20, np.float32), Views(noise))
    labelled = TrainStream(
        pixels, np.arange(5, 25), np.arange(20) % 2, Shuffled(20, 8, 3), Views(policy), 3, rank, size, pseudo=pseudo
    )
    return UnlabelledStream(
        labelled,
        pixels,
        np.arange(29, 40),
        8,
        weak=Views("d4"),
        strong=Views("strong"),
        ramp_steps=0,
        seed=3,
        rank=rank,
        size=size,
    )


def batches(stream, numbers=range(3), workers=0):
    return list(load(stream, numbers, workers, CPU))


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_sent_and_copied_patches_give_the_same_bits(sent, copied):
    assert all(same(a, b) for a, b in zip(batches(stream(sent)), batches(stream(copied)), strict=True))


def test_batches_are_those_of_the_file_to_1_of_255(pixels, copied):
    for theirs, mine in zip(batches(stream(pixels)), batches(stream(copied)), strict=True):
        assert theirs.keys() == mine.keys()
        for name in theirs:
            assert (theirs[name].dtype, theirs[name].shape) == (mine[name].dtype, mine[name].shape)
            assert (theirs[name].double() - mine[name].double()).abs().max() <= (1 if name in ("pixels", "strong") else 0)


def test_without_views_the_bits_are_those_of_the_file(pixels, copied):
    theirs, mine = (batches(stream(each, policy="d4", noise="none"))[0] for each in (pixels, copied))
    assert torch.equal(theirs["pixels"], mine["pixels"]) and torch.equal(theirs["weak"], mine["weak"])


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_together_draw_the_views_of_one(copied, size):
    for step in (0, 3):
        whole = stream(copied)[step]
        parts = [stream(copied, rank, size)[step] for rank in range(size)]
        for name in ("pixels", "weak", "strong"):
            assert torch.equal(whole[name].parameters, torch.cat([part[name].parameters for part in parts]))
            assert torch.equal(whole[name].patches, torch.cat([part[name].patches for part in parts]))
        shown = torch.cat([copied.render(part)["pixels"] for part in parts])
        assert (shown.int() - copied.render(whole)["pixels"].int()).abs().max() <= 1


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.processes
@pytest.mark.parametrize("place", ["sent", "copied"])
def test_workers_change_no_bit(request, place):
    pixels = request.getfixturevalue(place)
    assert all(same(a, b) for a, b in zip(batches(stream(pixels)), batches(stream(pixels), workers=2), strict=True))


def test_loader_processes_get_no_copy(copied):
    assert len(pickle.dumps(copied)) < 2000
    again = pickle.loads(pickle.dumps(copied))
    assert torch.equal(stream(again)[0]["pixels"].patches, stream(copied)[0]["pixels"].patches)


def test_only_the_rows_asked_for_are_copied_each_once(pixels):
    device = DevicePixels(pixels, CPU)
    device.copy(np.array([9, 3, 9, 30]))
    assert device.rows.tolist() == [3, 9, 30]
    drawn = device.draw(np.array([30, 3]), [Views("none")] * 2, [(0,), (1,)])
    assert np.array_equal(device.render({"pixels": drawn})["pixels"].numpy(), pixels.array[[30, 3]])


@pytest.mark.parametrize("place", ["sent", "copied"])
def test_the_host_does_not_wait_for_the_views(request, place):
    pixels = request.getfixturevalue(place)
    batch = stream(pixels)[1]
    with NoWaiting():
        pixels.render(batch)


def test_a_view_that_would_wait_is_found():
    with pytest.raises(AssertionError, match="index"), NoWaiting():
        torch.arange(4)[torch.arange(4) > 1].sum()


def test_a_drawn_batch_has_few_tensors():
    assert len(pack(torch.zeros(1), [Views("strong").parameters((0,), 16)])) == 3
