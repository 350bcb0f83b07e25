import pickle

import numpy as np
import pytest
import torch

from pcam_ssl.data.batches import EvalStream, PseudoPart, TrainStream, load
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.plans import Shuffled
from pcam_ssl.data.views import Views, id_key

CPU = torch.device("cpu")
N = 30


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    path = tmp_path_factory.mktemp("pixels") / "pixels.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (N, 16, 16, 3), dtype=np.uint8))
    return Pixels(path)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def train_stream(pixels, policy="strong", seed=3, rank=0, size=1, batch_size=8, pseudo=None) -> TrainStream:
    rows, labels = np.arange(5, 25), np.arange(20) % 2
    return TrainStream(pixels, rows, labels, Shuffled(20, batch_size, seed), Views(policy), seed, rank, size, pseudo=pseudo)


def eval_stream(pixels, rows, batch_size=4, random_views=0, policy="strong") -> EvalStream:
    keys = np.array([id_key(f"patch-{row}") for row in rows], np.uint64)
    return EvalStream(pixels, np.asarray(rows), keys, batch_size, Views(policy), random_views, 0)


@pytest.mark.parametrize("batch_size", [4, 6, 20, 33])
def test_each_pass_draws_each_patch_once(batch_size):
    plan = Shuffled(20, batch_size, 0)
    shown = np.concatenate([plan.batch(step) for step in range(20)])
    for begin in range(0, len(shown) - 19, 20):
        assert sorted(shown[begin : begin + 20]) == list(range(20))


def test_passes_have_different_orders():
    plan = Shuffled(20, 20, 0)
    assert plan.batch(0).tolist() != plan.batch(1).tolist()


def test_a_batch_is_a_pure_function_of_seed_and_step():
    forward, backward = Shuffled(20, 6, 5), Shuffled(20, 6, 5)
    steps = range(12)
    there, back = [forward.batch(s).tolist() for s in steps], [backward.batch(s).tolist() for s in reversed(steps)]
    assert there == back[::-1]
    assert Shuffled(20, 6, 6).batch(0).tolist() != there[0]


def test_a_train_batch_holds_the_folds_patches_and_labels(pixels):
    batch = train_stream(pixels, policy="none")[0]
    index = batch["index"].numpy()
    assert np.array_equal(batch["pixels"].numpy(), pixels.array[5 + index])
    assert batch["label"].tolist() == [float(i % 2) for i in index]


def test_steps_and_seeds_change_the_views(pixels):
    stream = train_stream(pixels, batch_size=20)
    first, later = stream[0], stream[1]
    one, two = first["index"].argsort(), later["index"].argsort()
    assert not torch.equal(first["pixels"][one], later["pixels"][two])


def test_a_repeated_patch_has_another_view(pixels):
    class Again:
        def batch(self, step: int) -> np.ndarray:
            return np.arange(8)

    stream = TrainStream(pixels, np.arange(20), np.zeros(20), Again(), Views("d4"), 3)
    assert not torch.equal(stream[0]["pixels"], stream[1]["pixels"])


def pseudo_part(ramp_steps=0, n_labelled=12) -> PseudoPart:
    weights = np.r_[np.ones(12), 0.1 * np.arange(1, 9)].astype(np.float32)
    return PseudoPart(n_labelled, weights, Views("none"), ramp_steps)


@pytest.mark.parametrize(("step", "share"), [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (100, 1.0)])
def test_weights_of_pseudo_labels_rise_linearly_and_those_of_labels_stay(step, share):
    found = pseudo_part(ramp_steps=4).weights_of(np.array([12, 0, 19, 11]), step)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([0.1 * share, 1, 0.8 * share, 1])


def test_without_a_ramp_weights_are_full_from_the_first_step():
    assert pseudo_part().weights_of(np.array([12, 19]), 0).tolist() == pytest.approx([0.1, 0.8])


def test_a_batch_with_pseudo_labels_holds_their_weights_soft_labels_and_views(pixels):
    labels = np.r_[np.zeros(12), np.full(8, 0.9)]
    stream = TrainStream(
        pixels, np.arange(5, 25), labels, Shuffled(20, 20, 0), Views("strong"), 0, pseudo=pseudo_part(ramp_steps=2)
    )
    batch = stream[0]
    index = batch["index"].numpy()
    is_pseudo = index >= 12
    assert batch["weight"].tolist() == pytest.approx(np.where(is_pseudo, 0.05 * (index - 11), 1).tolist())
    assert batch["label"].tolist() == pytest.approx(np.where(is_pseudo, 0.9, 0).tolist())
    unchanged = (batch["pixels"].numpy() == pixels.array[5 + index]).all(axis=(1, 2, 3))
    assert unchanged[is_pseudo].all() and not unchanged[~is_pseudo].all()


def test_a_batch_without_pseudo_labels_has_no_weights(pixels):
    assert "weight" not in train_stream(pixels)[0]


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_together_get_the_batches_of_one(pixels, size):
    for step in (0, 3, 7):
        whole = train_stream(pixels, pseudo=pseudo_part(ramp_steps=5))[step]
        parts = [train_stream(pixels, rank=rank, size=size, pseudo=pseudo_part(ramp_steps=5))[step] for rank in range(size)]
        assert same(whole, {name: torch.cat([part[name] for part in parts]) for name in whole})


def test_the_mapped_pixels_are_not_written_to(pixels):
    before = pixels.array.copy()
    train_stream(pixels)[0]["pixels"].zero_()
    assert np.array_equal(pixels.array, before)


def test_pixels_are_pickled_as_a_path(pixels):
    pixels.array  # noqa: B018 -- opens the map
    assert len(pickle.dumps(pixels)) < 500
    assert np.array_equal(pickle.loads(pickle.dumps(pixels)).array, pixels.array)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, pytest.param(4, marks=pytest.mark.processes)])
def test_workers_do_not_change_pixels_or_order(pixels, workers):
    stream = train_stream(pixels)
    loaded = list(load(stream, range(2, 9), workers, CPU))
    assert len(loaded) == 7
    assert all(same(batch, stream[step]) for step, batch in zip(range(2, 9), loaded, strict=True))


def test_evaluation_shows_every_row_once_in_order_without_padding(pixels):
    stream = eval_stream(pixels, [9, 3, 4, 20, 11], batch_size=2)
    batches = [stream[number] for number in range(len(stream))]
    assert [batch["place"].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert np.array_equal(torch.cat([batch["pixels"] for batch in batches]).numpy(), pixels.array[[9, 3, 4, 20, 11]])


def test_random_views_depend_on_the_id_only(pixels):
    together = eval_stream(pixels, [7, 2, 8, 5], batch_size=4, random_views=3)[0]["random"]
    alone = eval_stream(pixels, [5], batch_size=1, random_views=3)[0]["random"]
    assert torch.equal(together[3], alone[0])


def test_random_views_of_a_patch_differ(pixels):
    shown = eval_stream(pixels, [5], random_views=3)[0]["random"][0]
    assert len({view.numpy().tobytes() for view in shown}) == 3


def test_more_random_views_begin_with_the_same_views(pixels):
    few, more = (eval_stream(pixels, [5], random_views=n)[0]["random"][0] for n in (2, 4))
    assert torch.equal(few, more[:2])
