import numpy as np
import pytest
import torch
from processes import in_every_rank
from scipy.special import expit, logit

from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.views import Views, id_key
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.models.inference import TestViews, dihedral, predict_logits
from pcam_ssl.models.network import build_network

ALONE = World(0, 1, torch.device("cpu"))
FP32 = Precision("fp32", False, "asked for")
N = 11
IDS = [f"patch-{n}" for n in range(N)]


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    path = tmp_path_factory.mktemp("pixels") / "pixels.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8))
    return Pixels(path)


def network():
    torch.manual_seed(0)
    built = build_network("test_resnet", False, 32)
    torch.nn.init.normal_(built.head.weight, std=3)  # logits that differ from view to view
    return built


def predict(pixels, views, rows=range(N), batch_size=4, world=ALONE, workers=0, net=None):
    options = {"views": views, "batch_size": batch_size, "precision": FP32, "world": world, "workers": workers}
    return predict_logits(net or network(), pixels, np.asarray(rows), [IDS[row] for row in rows], **options)


def plain_loop(pixels, views: TestViews) -> np.ndarray:
    """Logits [N, V], one patch and one view at a time."""
    net, drawn = network().eval(), Views(views.policy, views.strength)
    table = []
    for patch, name in zip(pixels.array, IDS, strict=True):
        shown = [dihedral(torch.from_numpy(patch.copy())[None], element) for element in range(8 if views.d4 else 1)]
        random = [drawn(patch.copy(), (views.seed, 3, id_key(name), view)) for view in range(views.random_views)]
        with torch.no_grad():
            table.append(
                [net(view)["logit"].item() for view in [*shown, *(torch.from_numpy(view.copy())[None] for view in random)]]
            )
    return np.array(table)


@pytest.fixture(
    scope="module", params=[TestViews(d4=False), TestViews(), TestViews(random_views=2, seed=5)], ids=["plain", "d4", "d4+2"]
)
def views(request):
    return request.param


def test_the_prediction_is_the_mean_over_a_plain_loop_of_views(pixels, views):
    table = plain_loop(pixels, views)
    assert table.shape[1] == views.count
    mean, std, plain = predict(pixels, views)
    np.testing.assert_allclose(plain, table[:, 0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(mean, table.mean(1), rtol=0, atol=1e-4)
    np.testing.assert_allclose(std, table.std(1), rtol=0, atol=1e-4)


class FromPixels(torch.nn.Module):
    """The logit of a view is the value of its first pixel, minus 100."""

    outputs = 1

    def forward(self, shown):
        return {"logit": shown[:, 0, 0, 0].float() - 100}


@pytest.fixture
def corners(tmp_path):
    """One patch whose corners are 101, 99, 100, 104: under D4 each comes first twice."""
    patch = np.zeros((1, 2, 2, 3), np.uint8)
    patch[0, :, :, 0] = [[101, 99], [100, 104]]
    np.save(tmp_path / "pixels.npy", patch)
    return Pixels(tmp_path / "pixels.npy")


def test_the_logit_mean_by_hand(corners):
    mean, *_ = predict(corners, TestViews(mean="logit"), [0], net=FromPixels())
    assert mean.tolist() == [(1 - 1 + 0 + 4) / 4]


def test_the_prob_mean_by_hand(corners):
    mean, *_ = predict(corners, TestViews(mean="prob"), [0], net=FromPixels())
    assert mean[0] == pytest.approx(logit(np.mean(expit([1, -1, 0, 4]))))


@pytest.mark.parametrize("space", ["logit", "prob"])
def test_view_std_is_the_population_deviation_of_the_logits(corners, space):
    _, std, _ = predict(corners, TestViews(mean=space), [0], net=FromPixels())
    assert std.tolist() == [pytest.approx(np.sqrt((0 + 4 + 1 + 9) / 4))]


def test_extreme_logits_stay_finite_in_prob_space(corners):
    class Extreme(torch.nn.Module):
        outputs = 1

        def forward(self, shown):
            return {"logit": 1e4 * (100 - shown[:, 0, 0, 0].float())}

    with np.errstate(over="raise", divide="raise"):
        mean, *_ = predict(corners, TestViews(d4=False, mean="prob"), [0], net=Extreme())
    assert np.isfinite(mean).all()


def test_neighbours_rows_and_batch_size_do_not_matter(pixels):
    views = TestViews(random_views=1)
    mean, std, _ = predict(pixels, views)
    order = [8, 2, 5]
    for batch_size in (1, 2, 64):
        some, some_std, _ = predict(pixels, views, order, batch_size)
        np.testing.assert_allclose(some, mean[order], rtol=0, atol=1e-4)
        np.testing.assert_allclose(some_std, std[order], rtol=0, atol=1e-4)


@pytest.mark.processes
def test_workers_do_not_change_a_bit(pixels):
    views = TestViews(random_views=1)
    assert all(np.array_equal(a, b) for a, b in zip(predict(pixels, views), predict(pixels, views, workers=2), strict=True))


def test_a_symmetric_patch_has_no_view_std(tmp_path):
    np.save(tmp_path / "pixels.npy", np.full((1, 32, 32, 3), 77, np.uint8))
    assert predict(Pixels(tmp_path / "pixels.npy"), TestViews(), [0])[1][0] == pytest.approx(0, abs=1e-5)


def test_no_rows_give_empty_predictions(pixels):
    assert [len(part) for part in predict(pixels, TestViews(), [])] == [0, 0, 0]


def test_advance_is_called_for_every_patch(pixels):
    heard = []
    options = {"views": TestViews(), "batch_size": 4, "precision": FP32, "world": ALONE}
    predict_logits(network(), pixels, np.arange(N), IDS, **options, advance=heard.append)
    assert heard == [4, 4, 3]


def predict_in_world(world: World, path):
    return predict(Pixels(path), TestViews(random_views=1), world=world)


@pytest.mark.processes
@pytest.mark.parametrize("size", [2, 4])
def test_every_process_gets_every_patch_once(pixels, size):
    expected = predict(pixels, TestViews(random_views=1))
    for parts in in_every_rank(size, predict_in_world, pixels.path):
        for part, whole in zip(parts, expected, strict=True):
            np.testing.assert_allclose(part, whole, rtol=0, atol=1e-4)
