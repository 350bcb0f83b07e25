"""Runs on a frozen backbone: heads on cached features, and cross-fitted inner evidence."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pcam_ssl.cross_validation import linear_heads
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.folds import fold_unit, read_folds
from pcam_ssl.data.views import dihedral
from pcam_ssl.errors import UserError
from pcam_ssl.explain.gradcam import GradCam
from pcam_ssl.models.artefact import load_calibrated
from pcam_ssl.models.network import Network, build_network
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.tables import read_predictions, read_table

FROZEN = ("model.freeze_backbone=true", "cv.inner_folds=2", "features.layers=stages")
HEADS = {
    "linear": ("optim.name=lbfgs", "predict.d4=true"),
    "mlp": ("model.head=mlp", "model.hidden=8", "predict.d4=true"),
    "random views": ("views.policy=standard", "features.random_views=2", "predict.random_views=1"),
    "fixmatch": ("method.name=fixmatch", "method.strong=d4", "method.ratio=1"),
    "mean teacher": ("method.name=mean_teacher", "method.strong=d4", "method.ratio=1"),
    "mixmatch": ("method.name=mixmatch",),
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PCAM_SSL_CACHE", str(tmp_path_factory.getbasetemp() / "features"))


@pytest.fixture(scope="module")
def linear(train, tmp_path_factory):
    """A finished run of linear heads. Do not write into it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PCAM_SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train(tmp_path_factory.mktemp("run") / "linear", *FROZEN, *HEADS["linear"])


def table(run, k: int, name: str) -> pd.DataFrame:
    return read_table(run.fold(k) / f"{name}.parquet")[0]


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_cache_changes_no_number(train, tmp_path, head):
    cached = train(tmp_path / "cached", *FROZEN, *head, only=[0])
    anew = train(tmp_path / "anew", *FROZEN, *head, "features.cache=false", only=[0])
    for name in ("oof", "inner", "test"):
        ours, theirs = table(cached, 0, name), table(anew, 0, name)
        # Features of random weights hardly differ between patches, so float16 tells them apart less well than those of a trained network.
        np.testing.assert_allclose(ours.logit, theirs.logit, atol=0.15)
        assert np.corrcoef(ours.logit, theirs.logit)[0, 1] > 0.995


@pytest.mark.trains
def test_a_metric_run_asks_its_neighbours_on_features(slides, tiny_recipe, tmp_path):
    from pcam_ssl.api import metric_train

    recipe = tiny_recipe(*FROZEN, "method.name=metric", "method.projection=8", "neighbours.k=inner", "train.batch_size=8")
    run = metric_train(slides, recipe, out=tmp_path / "metric")
    facts = json.loads((run.fold(0) / "fold.json").read_text())["neighbours"]
    assert facts["gallery"] == read_folds(run.paths.folds, open_dataset(slides).patches).train_mask(0).sum()
    assert set(read_predictions(run.fold(0) / "inner-knn.parquet").id) == set(table(run, 0, "inner").id)


def test_the_backbone_is_asked_once(train, tmp_path, monkeypatch):
    train(tmp_path / "first", *FROZEN, *HEADS["linear"])
    calls = []
    plain = Network.features
    monkeypatch.setattr(Network, "features", lambda self, pixels: calls.append(len(pixels)) or plain(self, pixels))
    # Random weights are drawn by the seed, so folds are drawn anew in place of weights.
    train(tmp_path / "second", *FROZEN, *HEADS["linear"], "cv.seed=1")
    # A single patch tries whether the backbone can take it: when the run is begun, and when it is opened.
    assert calls == [1, 1]


class TestCrossFitting:
    def test_each_training_patch_is_scored_by_an_inner_network(self, linear, slides):
        folds = read_folds(linear.paths.folds, open_dataset(slides).patches)
        for k in range(folds.n_folds):
            assert set(table(linear, k, "inner").id) == set(folds.frame.id[folds.train_mask(k)])

    def test_no_slide_of_it_trains_that_network(self, linear, slides):
        folds = read_folds(linear.paths.folds, open_dataset(slides).patches)
        for unit in (fold_unit(folds, k) for k in range(folds.n_folds)):
            assert len(unit.parts) == 2
            for part in unit.parts:
                groups = folds.frame.group
                assert not set(groups[part.train]) & set(groups[part.inner])
                assert not (part.train & part.score).any()

    def test_labels_of_its_patches_do_not_reach_an_inner_network(self, linear, slides, rewrite, train, tmp_path):
        folds = read_folds(linear.paths.folds, open_dataset(slides).patches)
        part = fold_unit(folds, 0).parts[0]
        hidden = set(folds.frame.id[part.inner])

        def scramble(patches):
            turned = patches.id.isin(hidden)
            return patches.assign(label=patches.label.where(~turned, 1 - patches.label))

        data = rewrite(slides, tmp_path / "scrambled", scramble)
        # C is chosen on all inner patches, these among them, so it is fixed here.
        settings = (*FROZEN, "optim.name=lbfgs", "optim.c=0.01", f"cv.folds_file={linear.paths.folds}")
        first = train(tmp_path / "true", *settings, only=[0])
        second = train(tmp_path / "turned", *settings, only=[0], data=data)
        weights = [(run.unit(part.name) / "model.safetensors").read_bytes() for run in (first, second)]
        assert weights[0] == weights[1]
        assert (first.fold(0) / "model.safetensors").read_bytes() != (second.fold(0) / "model.safetensors").read_bytes()

    def test_the_temperature_rests_on_all_of_them(self, linear):
        facts = json.loads((linear.fold(0) / "fold.json").read_text())
        assert facts["calibration"]["n"] == len(table(linear, 0, "inner"))


def test_the_artefact_is_a_whole_network(linear, slides):
    trained = load_calibrated(linear.fold(0), "cpu")
    dataset = open_dataset(slides)
    scored = table(linear, 0, "oof")
    patches = np.array(dataset.pixels[dataset.patches.set_index("id").row[scored.id].to_numpy()])
    with torch.inference_mode():
        views = [trained(np.stack([dihedral(patch, element) for patch in patches])).numpy() for element in range(8)]
    np.testing.assert_allclose(scored.logit, np.mean(views, axis=0), atol=0.15)


def test_predict_needs_nothing_else(linear, slides, command, tmp_path):
    done = command("predict", linear.path, slides, "--split", "test", "--out", tmp_path / "new.parquet")
    assert done.code == 0, done.err
    ours = read_predictions(tmp_path / "new.parquet").query("fold == 0").set_index("id").logit
    theirs = table(linear, 0, "test").set_index("id").logit
    np.testing.assert_allclose(ours.loc[theirs.index], theirs, atol=0.15)


def test_rounds_train_inner_networks_on_their_own_pseudo_labels(linear, slides, command, tmp_path):
    settings = [
        "pseudo.precision=null",
        "pseudo.top_share=1",
        "pseudo.balance=none",
        "pseudo.label=soft",
        "pseudo.planted_share=0",
        "pseudo.stop_share=null",
    ]
    sets = [word for each in settings for word in ("--set", each)]
    done = command("pseudo-label", linear.path, "--rounds", "2", "--anyway", "--out", tmp_path / "rounds", *sets)
    assert done.code == 0, done.err
    for part in ("", "inner-0", "inner-1"):
        folder = tmp_path / "rounds" / "round-1" / "fold-0" / part
        decisions = read_table(folder / "pseudo.parquet")[0]
        assert (decisions.decision == "added").sum() == 16, decisions.reason.unique()
    own, inner = (read_table(tmp_path / "rounds" / "round-1" / "fold-0" / part / "pseudo.parquet")[0] for part in ("", "inner-0"))
    assert not np.array_equal(own.label, inner.label)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("views.policy=standard",), "set features.random_views=8, or views.policy=d4"),
        (("predict.random_views=2",), "features.random_views keeps 0"),
        (("model.drop_path_rate=0.1",), "no effect on a frozen backbone"),
        (("optim.name=lbfgs", "model.head=mlp"), "model.head=linear"),
        (("optim.name=lbfgs", "model.drop_rate=0.1"), "model.drop_rate=0"),
        (("optim.name=lbfgs", "method.name=fixmatch", "method.strong=d4"), "method.name=supervised"),
        (("cv.inner_folds=1",), "2 or more"),
        (("cv.inner_folds=3", "train.choose=inner"), "train.choose=last"),
    ],
)
def test_what_a_frozen_backbone_cannot_do_is_refused(settings, told):
    with pytest.raises(UserError) as refused:
        load_recipe(None, ["model.freeze_backbone=true", *settings])
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [(("optim.name=lbfgs",), "model.freeze_backbone=true"), (("cv.inner_folds=3",), "model.freeze_backbone=true")],
)
def test_what_needs_a_frozen_backbone_says_so(settings, told):
    with pytest.raises(UserError) as refused:
        load_recipe(None, settings)
    assert told in str(refused.value)


def test_defaults_of_a_frozen_backbone():
    recipe = load_recipe(None, ["model.freeze_backbone=true"])
    assert (recipe.views.policy, recipe.optim.name, recipe.pseudo.noise) == ("d4", "lbfgs", "same")
    assert load_recipe(None, ["model.freeze_backbone=true", "model.head=mlp"]).optim.name == "adamw"
    assert load_recipe(None, []).views.policy == "standard"


def test_a_key_of_the_linear_head_needs_no_name():
    assert load_recipe(None, ["model.freeze_backbone=true", "optim.c=0.01"]).optim.c == 0.01
    assert load_recipe(None, ["model.freeze_backbone=true", "optim.lr=0.01"]).optim.name == "adamw"


def test_no_room_for_the_cache_is_one_line_before_any_work(train, tmp_path, monkeypatch):
    monkeypatch.setattr("pcam_ssl.data.writer.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"not enough disk space.*PCAM_SSL_CACHE.*features\.cache=false"):
        train(tmp_path / "run", *FROZEN, "seed=5")
    assert not (tmp_path / "run" / "fold-0").exists()


@pytest.mark.parametrize("inner_folds", [0, 2])
def test_c_has_the_lowest_loss_on_the_inner_patches(train, tmp_path, inner_folds):
    settings = [setting for setting in FROZEN if not setting.startswith("cv.inner_folds")]
    run = train(tmp_path / "run", *settings, f"cv.inner_folds={inner_folds}", *HEADS["linear"], only=[0])
    facts = json.loads((run.fold(0) / "fold.json").read_text())
    losses = facts["c_losses"]
    assert losses[f"{facts['c']:.3g}"] == min(losses.values())
    inner = table(run, 0, "inner")
    own = np.logaddexp(0, np.where(inner.label == 1, -1, 1) * inner.logit).mean()
    assert min(losses.values()) == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("signal", [1.0, 0.0], ids=["clear labels", "noise"])
def test_the_search_for_c_ends_between_worse_neighbours(train, tmp_path, monkeypatch, signal):
    """Clear labels want a large C, noise a small one: both lie beyond the values that are tried first."""
    rng = np.random.default_rng(0)

    def features(context, rows, policy):
        rows = np.asarray(rows)
        labels = context.dataset.patches.set_index("row").label.loc[rows].to_numpy(float)
        drawn = rng.normal(size=(len(rows), context.frozen.network.n_features))
        return torch.from_numpy(drawn + signal * labels[:, None]).float()

    monkeypatch.setattr("pcam_ssl.cross_validation.linear_heads.unit_features", features)
    run = train(tmp_path / "run", *FROZEN, *HEADS["linear"], only=[0])
    facts = json.loads((run.fold(0) / "fold.json").read_text())
    n_features = len(load_file(run.fold(0) / "model.safetensors")["feature_mean"])
    places = [round(2 * np.log10(float(c) * n_features)) + 2 for c in facts["c_losses"]]
    losses = dict(zip(places, facts["c_losses"].values(), strict=True))
    best = min(losses, key=losses.get)
    assert places == list(range(places[0], places[-1] + 1))
    assert set(linear_heads.FIRST) <= set(places)
    assert {best - 1, best + 1} & set(range(len(linear_heads.PRODUCTS))) <= set(places)
    assert best not in linear_heads.FIRST


@pytest.mark.parametrize("layers", ["last", "stages"])
def test_grad_cam_explains_the_logit_of_a_frozen_network(layers):
    torch.manual_seed(0)
    network = build_network("test_resnet", False, 32, layers=layers, standardised=True).eval()
    network.feature_mean.normal_()
    network.feature_std.uniform_(0.5, 2)
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    logits, maps = GradCam(network)(pixels)
    with torch.inference_mode():
        np.testing.assert_allclose(logits.numpy(), network(pixels)["logit"].numpy(), atol=1e-4)
    assert maps.abs().sum() > 0
    if layers == "stages":
        # The head is linear in the pooled maps, so together they add up to the logit, but for its bias and the scale's shift.
        shift = network(pixels)["logit"] - (network.features(pixels) / network.feature_std) @ network.head.weight[0]
        np.testing.assert_allclose((logits - shift).detach().numpy(), maps.sum((1, 2)).numpy(), rtol=1e-3, atol=1e-3)
