"""The cache of a frozen backbone's features."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.features import FACTS, features_root, stored_features
from pcam_ssl.data.fixed_views import D4, FixedViews
from pcam_ssl.data.views import dihedral, id_key
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError
from pcam_ssl.models.features import backbone_digest, cached_features
from pcam_ssl.models.network import build_network

FP32 = Precision("fp32", False, "")
ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def dataset(slides, tmp_path, monkeypatch):
    monkeypatch.setenv("PCAM_SSL_CACHE", str(tmp_path / "cache"))
    return open_dataset(slides)


def network(seed: int = 0, layers: str = "last"):
    torch.manual_seed(seed)
    return build_network("test_resnet", False, 32, layers=layers)


def fill(dataset, net, *views, **options):
    return cached_features(dataset, net, views, precision=FP32, world=ALONE, batch_size=32, **options)


def asked(net, patches: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return net.features(torch.from_numpy(np.array(patches))).numpy()


@pytest.mark.parametrize("layers", ["last", "stages"])
def test_a_view_holds_what_the_backbone_says(dataset, layers):
    net = network(layers=layers)
    features = fill(dataset, net, FixedViews("d4"))
    for element in (0, 3, 6):
        views = np.stack([dihedral(patch, element) for patch in dataset.pixels])
        np.testing.assert_allclose(features.array(D4[element]), asked(net, views), rtol=1e-3, atol=1e-4)


def test_random_views_are_kept_too(dataset):
    net = network()
    ids = np.array([id_key(each) for each in dataset.patches.id], np.uint64)
    views = FixedViews("standard", count=2, ids=ids)
    features = fill(dataset, net, FixedViews("none"), views)
    drawn = np.stack([views.render(dataset.pixels[row], row, 1) for row in range(8)])
    np.testing.assert_allclose(features.of(np.arange(8), views.names[1]), asked(net, drawn), rtol=1e-3, atol=1e-4)


def test_a_batch_draws_the_views_that_pixels_draw(dataset):
    net, views, rows = network(), FixedViews("d4"), np.array([3, 0, 9])
    features = fill(dataset, net, views)
    keys = [(1, 2, 5, place) for place in range(3)]
    pixels = np.stack([views(dataset.pixels[row], key, row) for row, key in zip(rows, keys, strict=True)])
    np.testing.assert_allclose(features.draw(rows, [views] * 3, keys), asked(net, pixels), rtol=1e-3, atol=1e-4)


def test_what_is_there_is_not_computed_again(dataset, monkeypatch):
    net = network()
    fill(dataset, net, FixedViews("d4"))
    monkeypatch.setattr(type(net), "features", lambda *_: pytest.fail("computed again"))
    fill(dataset, net, FixedViews("d4"), FixedViews("none"))


def test_other_weights_have_their_own(dataset):
    first, second = network(0), network(1)
    assert backbone_digest(first) != backbone_digest(second)
    ours, theirs = fill(dataset, first, FixedViews("none")), fill(dataset, second, FixedViews("none"))
    assert not np.array_equal(ours.array(D4[0]), theirs.array(D4[0]))
    assert len(stored_features(features_root(dataset.path, dataset.digest))) == 2


def test_the_number_format_and_the_layers_have_their_own(dataset):
    net = network()
    bf16 = cached_features(dataset, net, [FixedViews("none")], precision=Precision("bf16", False, ""), world=ALONE)
    assert bf16.folder != fill(dataset, net, FixedViews("none")).folder
    assert backbone_digest(net) != backbone_digest(network(layers="stages"))


@pytest.mark.parametrize("cut", [0, 60, 4000])
def test_a_file_cut_short_is_made_again(dataset, cut):
    net = network()
    features = fill(dataset, net, FixedViews("none"))
    whole = features.array(D4[0]).copy()
    path = features.path(D4[0])
    path.write_bytes(path.read_bytes()[:cut])
    assert np.array_equal(fill(dataset, net, FixedViews("none")).array(D4[0]), whole)


def test_facts_of_something_else_empty_the_folder(dataset):
    net = network()
    features = fill(dataset, net, FixedViews("none"))
    facts = json.loads((features.folder / FACTS).read_text())
    (features.folder / FACTS).write_text(json.dumps({**facts, "identity": {**facts["identity"], "dataset": "another"}}))
    features.path(D4[0]).write_bytes(b"of another dataset")
    assert fill(dataset, net, FixedViews("none")).array(D4[0]).shape == (len(dataset), net.n_features)


def test_a_feature_beyond_float16_is_refused(dataset):
    net = network()
    with torch.no_grad():
        for parameter in net.backbone.parameters():
            parameter.mul_(1e4)
    with pytest.raises(UserError, match=r"not a finite float16.*features\.cache=false"):
        fill(dataset, net, FixedViews("none"))


FILL = """
import sys, time, torch, numpy as np
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.fixed_views import FixedViews
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.models import features, filling
from pcam_ssl.models.network import Network, build_network
filling.FLUSH_S = 0.0
torch.manual_seed(0)
net = build_network("test_resnet", False, 32)
plain = Network.features
def slow(self, pixels):
    print("batch", flush=True)
    time.sleep(float(sys.argv[2]))
    return plain(self, pixels)
Network.features = slow
features.cached_features(open_dataset(sys.argv[1]), net, [FixedViews("none")], precision=Precision("fp32", False, ""),
                         world=World(0, 1, torch.device("cpu")), batch_size=8)
"""


def process(dataset, pause_s: float) -> subprocess.Popen:
    argv = [sys.executable, "-c", FILL, str(dataset.path), str(pause_s)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy())


@pytest.mark.processes
def test_a_killed_command_is_continued(dataset):
    batches = -(-len(dataset) // 8)
    killed = process(dataset, 0.3)
    for _ in range(4):
        killed.stdout.readline()
    killed.kill()
    killed.wait()
    rest = process(dataset, 0)
    out, error = rest.communicate(timeout=120)
    assert rest.returncode == 0, error
    assert out.count("batch") == batches - 3
    np.testing.assert_array_equal(fill(dataset, network(), FixedViews("none")).array(D4[0]).shape, (len(dataset), 96))


@pytest.mark.processes
def test_a_second_command_waits_and_computes_nothing(dataset):
    path = fill(dataset, network(), FixedViews("none")).path(D4[0])
    hidden = path.rename(path.with_suffix(".away"))
    with FileLock(path.parent / ".lock"):
        second = process(dataset, 0)
        assert "another process computes these features" in second.stderr.readline()
        hidden.rename(path)
    out, error = second.communicate(timeout=120)
    assert second.returncode == 0, error
    assert "batch" not in out


def test_a_full_disk_is_one_line_and_leaves_nothing(dataset, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"No space left.*PCAM_SSL_CACHE"):
        fill(dataset, network(), FixedViews("none"))
    left = [path.name for path in Path(os.environ["PCAM_SSL_CACHE"]).rglob("*") if path.is_file()]
    assert [name for name in left if name not in (FACTS, ".lock")] == []


def test_features_that_are_gone_are_one_line(dataset):
    features = fill(dataset, network(), FixedViews("none"))
    features.path(D4[0]).unlink()
    with pytest.raises(UserError, match="run the same command again"):
        features.of(np.arange(2), D4[0])


def test_space_is_taken_where_the_system_has_no_call_for_it(dataset, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    net = network()
    features = fill(dataset, net, FixedViews("none"))
    np.testing.assert_allclose(features.array(D4[0]), asked(net, np.asarray(dataset.pixels)), rtol=1e-3, atol=1e-4)
