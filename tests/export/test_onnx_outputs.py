import numpy as np
import pytest
import torch
from scipy.special import expit

from pcam_ssl.data.dataset import PIXELS, open_dataset
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.evaluation.calibration import Calibrator
from pcam_ssl.export.onnx import Exported, Member
from pcam_ssl.models.inference import TestViews, predict_logits
from pcam_ssl.models.network import build_network
from pcam_ssl.runs.networks import mean_of_folds
from pcam_ssl.tables import predictions

N, T = 6, 1.7


@pytest.fixture(scope="module")
def members():
    """Two untrained networks with an embedding of 8 values."""
    torch.manual_seed(0)
    made = []
    for number in range(2):
        network = build_network("test_resnet", False, 32, projection=8)
        torch.nn.init.normal_(network.head.weight)  # the head starts at zero, and so would every logit
        made.append(Member(f"fold-{number}", network, "digest"))
    return made


@pytest.fixture(scope="module")
def patches(slides):
    return np.array(open_dataset(slides).pixels[:N])


def said(exported, patches) -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in exported.eval()(torch.from_numpy(patches))]


def predicted(member, slides, views) -> np.ndarray:
    """The logits that `predict` would give."""
    world, precision = World(0, 1, torch.device("cpu")), Precision("fp32", False, "")
    scorer = dict(views=views, batch_size=4, precision=precision, world=world)
    return predict_logits(member.network, Pixels(slides / PIXELS), np.arange(N), [str(n) for n in range(N)], **scorer)[0]


def test_one_view_gives_the_output_of_the_network(members, patches):
    logit, prob, embedding = said(Exported(members[:1], T), patches)
    with torch.inference_mode():
        expected = members[0].network(torch.from_numpy(patches))
    np.testing.assert_array_equal(logit, expected["logit"].numpy())
    np.testing.assert_array_equal(embedding, expected["embedding"].numpy())
    np.testing.assert_allclose(prob, Calibrator(T).prob(logit), rtol=1e-6)


@pytest.mark.parametrize("space", ["logit", "prob"])
def test_d4_views_are_averaged_as_predict_does(members, patches, slides, space):
    logit, prob, _ = said(Exported(members[:1], T, d4=True, space=space), patches)
    expected = predicted(members[0], slides, TestViews(d4=True, mean=space))
    np.testing.assert_allclose(logit, expected, atol=1e-5)
    np.testing.assert_allclose(prob, expit(expected / T), atol=1e-5)


def test_the_embedding_is_of_the_patch_as_it_is(members, patches):
    np.testing.assert_allclose(
        said(Exported(members[:1], T, d4=True), patches)[2], said(Exported(members[:1], T), patches)[2], atol=1e-6
    )


def test_several_networks_are_averaged_as_predict_does_and_have_no_embedding(members, patches, slides):
    parts = []
    for number, member in enumerate(members):
        logits = predicted(member, slides, TestViews(d4=False))
        parts.append(predictions([str(n) for n in range(N)], [None] * N, [None] * N, number, logits))
    expected = mean_of_folds(parts, Calibrator(T))
    exported = Exported(members, T)
    logit, prob = said(exported, patches)
    assert exported.outputs == ("logit", "prob")
    np.testing.assert_allclose(logit, expected.logit, atol=1e-6)
    np.testing.assert_allclose(prob, expected.prob, atol=1e-6)
