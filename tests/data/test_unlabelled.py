import numpy as np
import pytest
import torch

from pcam_ssl.data.batches import TrainStream, UnlabelledStream, load
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.plans import Shuffled
from pcam_ssl.data.views import Views

POOL = np.arange(18, 30)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    path = tmp_path_factory.mktemp("pixels") / "pixels.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8))
    return Pixels(path)


def stream(pixels, rows=POOL, weak="d4", strong="strong", ramp_steps=0.0, rank=0, size=1, seed=3) -> UnlabelledStream:
    labelled = TrainStream(pixels, np.arange(18), np.arange(18) % 2, Shuffled(18, 4, seed), Views("standard"), seed, rank, size)
    views = {"weak": Views(weak), "strong": Views(strong)}
    return UnlabelledStream(labelled, pixels, rows, 8, **views, ramp_steps=ramp_steps, seed=seed, rank=rank, size=size)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def shown(pixels, batch) -> list[int]:
    """Rows of the patches in `weak`, where it is shown without a view."""
    found = (pixels.array[None] == batch["weak"].numpy()[:, None]).all((2, 3, 4))
    assert (found.sum(1) == 1).all()
    return found.argmax(1).tolist()


def test_the_labelled_part_of_a_batch_does_not_change(pixels):
    whole = stream(pixels)
    alone = whole.labelled[5]
    assert same(alone, {name: whole[5][name] for name in alone})


def test_weak_and_strong_are_views_of_the_same_patches(pixels):
    batch = stream(pixels, weak="none", strong="none")[3]
    assert batch["weak"].shape == (8, 16, 16, 3)
    assert torch.equal(batch["weak"], batch["strong"])


def test_one_policy_still_makes_two_views(pixels):
    batch = stream(pixels, weak="strong", strong="strong")[3]
    assert not any(torch.equal(weak, strong) for weak, strong in zip(batch["weak"], batch["strong"], strict=True))


def test_passes_draw_every_pool_patch_once_and_no_others(pixels):
    plain = stream(pixels, weak="none")
    rows = [row for step in range(3) for row in shown(pixels, plain[step])]
    assert sorted(rows[:12]) == sorted(rows[12:]) == POOL.tolist()
    assert rows[:12] != rows[12:]


def test_orders_differ_from_those_of_labelled_patches(pixels):
    of_equal_sizes = stream(pixels, rows=np.arange(18), weak="none")
    assert of_equal_sizes.plan.batch(0)[:4].tolist() != of_equal_sizes.labelled.plan.batch(0).tolist()


@pytest.mark.parametrize("n", [1, 3])
def test_a_pool_smaller_than_a_batch_repeats(pixels, n):
    rows = shown(pixels, stream(pixels, rows=POOL[:n], weak="none")[0])
    assert len(rows) == 8
    assert set(rows) == set(POOL[:n])


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_together_get_the_batches_of_one(pixels, size):
    for step in (0, 7):
        whole = stream(pixels)[step]
        parts = [stream(pixels, rank=rank, size=size)[step] for rank in range(size)]
        assert {float(part.pop("ramp")) for part in parts} == {float(whole.pop("ramp"))}
        assert same(whole, {name: torch.cat([part[name] for part in parts]) for name in whole})


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.processes)])
def test_workers_do_not_change_pixels_or_order(pixels, workers):
    made = stream(pixels, ramp_steps=6)
    loaded = list(load(made, range(2, 7), workers, torch.device("cpu")))
    assert all(same(batch, made[step]) for step, batch in zip(range(2, 7), loaded, strict=True))


def test_seeds_change_patches_and_views(pixels):
    assert not torch.equal(stream(pixels)[0]["weak"], stream(pixels, seed=4)[0]["weak"])


def test_the_ramp_rises_to_one(pixels):
    ramped = stream(pixels, ramp_steps=4)
    assert [float(ramped[step]["ramp"]) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_without_a_ramp_it_is_one_from_the_first_step(pixels):
    assert float(stream(pixels)[0]["ramp"]) == 1.0


def test_the_mapped_pixels_are_not_written_to(pixels):
    before = pixels.array.copy()
    stream(pixels)[0]["weak"].zero_()
    assert np.array_equal(pixels.array, before)


def mixed(pixels, rank=0, size=1, **changed) -> UnlabelledStream:
    labelled = TrainStream(pixels, np.arange(20), np.arange(20) % 2, Shuffled(20, 4, 3), Views("none"), 3, rank, size)
    options = {"strong": None, "n_weak": 3, "mixup_alpha": 0.75, "ramp_steps": 0.0, "seed": 3} | changed
    return UnlabelledStream(labelled, pixels, POOL, 8, weak=Views("d4"), rank=rank, size=size, **options)


def test_several_weak_views_are_views_of_the_same_patches_one_after_the_other(pixels):
    batch = mixed(pixels)[2]
    assert "strong" not in batch and batch["weak"].shape == (24, 16, 16, 3)
    first, *others = (view.flatten(1, 2).sum(1) for view in batch["weak"].split(8))
    assert all(torch.equal(first, other) for other in others)  # D4 keeps the sums of the colours
    assert len({view.numpy().tobytes() for view in batch["weak"].split(8)}) == 3
    assert torch.equal(batch["weak"][:8], mixed(pixels, n_weak=1)[2]["weak"])


def test_mixup_keeps_the_larger_share_and_pairs_every_patch_once(pixels):
    batches = [mixed(pixels)[step] for step in (0, 1, 0)]
    for batch in batches:
        assert batch["share"].shape == (28,) and batch["share"].min() >= 0.5 and batch["share"].max() <= 1
        assert sorted(batch["partner"].tolist()) == list(range(28))
    assert all(torch.equal(batches[0][key], batches[2][key]) for key in ("share", "partner"))
    assert not any(torch.equal(batches[0][key], batches[1][key]) for key in ("share", "partner"))


def test_processes_share_the_draws_of_mixup_by_kind(pixels):
    whole, parts = mixed(pixels)[1], [mixed(pixels, rank, 2)[1] for rank in (0, 1)]
    kinds = [4, 8, 8, 8]
    for key in ("share", "partner"):
        halves = [part[key].split([n // 2 for n in kinds]) for part in parts]
        assert torch.equal(torch.cat([torch.cat(pair) for pair in zip(*halves, strict=True)]), whole[key])


def test_a_large_alpha_mixes_more(pixels):
    assert mixed(pixels, mixup_alpha=50.0)[0]["share"].mean() < mixed(pixels, mixup_alpha=0.05)[0]["share"].mean()
