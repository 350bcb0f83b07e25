import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy.special import expit

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.export import onnx as exporting
from pcam_ssl.export.onnx import export_onnx
from pcam_ssl.files import digest_file, read_json
from pcam_ssl.models.artefact import load_network
from pcam_ssl.tables import read_table


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """The refit network of `trained_run` as a file, and what was said of it."""
    file = tmp_path_factory.mktemp("onnx") / "made" / "refit.onnx"
    return file, export_onnx(trained_run, file)


@pytest.fixture(scope="module")
def mean_of_folds(finished, tmp_path_factory):
    """All folds of `finished` under all D4 views, as a file."""
    file = tmp_path_factory.mktemp("onnx") / "folds.onnx"
    export_onnx(finished.path, file, all_folds=True, d4=True)
    return file


@pytest.fixture
def exporter(exported, monkeypatch):
    """Instead of a minute's work: the file of the refit network, whatever is asked for."""
    monkeypatch.setattr(exporting, "write_onnx", lambda path, *_: shutil.copy(exported[0], path))


def metadata(file) -> dict[str, str]:
    return {each.key.removeprefix("pcam_ssl."): each.value for each in onnx.load(file).metadata_props}


def test_the_file_scores_and_embeds_as_the_refit_network(exported, trained_run, unknown_slides):
    network, facts = load_network(trained_run / "refit", torch.device("cpu"))
    pixels = np.array(open_dataset(unknown_slides).pixels[:7])
    logit, prob, embedding = onnxruntime.InferenceSession(exported[0]).run(None, {"pixels": pixels})
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels))
    np.testing.assert_allclose(logit, expected["logit"].numpy(), atol=1e-5)
    np.testing.assert_allclose(embedding, expected["embedding"].numpy(), atol=1e-5)
    np.testing.assert_allclose(prob, expit(logit / facts["calibration"]["temperature"]), atol=1e-6)


def test_the_result_states_the_check(exported, unknown_slides):
    _, facts = exported
    assert (facts["units"], facts["views"], facts["outputs"]) == (["refit"], "plain", ["logit", "prob", "embedding"])
    assert facts["checked"]["n"] == 32 and facts["checked"]["dataset"] == str(unknown_slides)
    assert 0 < max(facts["checked"]["largest_difference"].values()) < facts["checked"]["limit"] == 1e-4


def test_the_file_holds_its_metadata(exported, trained_run):
    told, info = metadata(exported[0]), read_json(trained_run / "run.json")
    assert json.loads(told["classes"]) == ["normal", "tumor"] and told["positive_class"] == "tumor"
    assert "not for diagnosis" in told["notice"] and "not for diagnosis" in onnx.load(exported[0]).doc_string
    assert (told["recipe_digest"], told["dataset_digest"]) == (info["recipe_digest"], info["dataset_digest"])
    assert json.loads(told["network_digest"]) == [digest_file(trained_run / "refit" / "model.safetensors")]
    assert json.loads(told["temperature"]) == read_json(trained_run / "refit" / "model.json")["calibration"]["temperature"]
    assert "RGB uint8 [batch, 32, 32, 3]" in told["preprocessing"] and "resized" not in told["preprocessing"]


def test_only_the_file_is_written(exported):
    assert [path.name for path in exported[0].parent.iterdir()] == ["refit.onnx"]


def test_all_folds_and_views_give_the_scores_of_predict(mean_of_folds, finished, slides):
    dataset = open_dataset(slides)
    test = read_table(finished.path / "test.parquet")[0].query("fold == -1").set_index("id")
    rows = dataset.patches[dataset.patches.split == "test"]
    logit, prob = onnxruntime.InferenceSession(mean_of_folds).run(None, {"pixels": np.array(dataset.pixels[rows.row])})
    np.testing.assert_allclose(logit, test.logit[rows.id], atol=1e-5)
    np.testing.assert_allclose(prob, test.prob[rows.id], atol=1e-5)
    assert json.loads(metadata(mean_of_folds)["units"]) == ["fold-0", "fold-1"]


def test_a_file_that_differs_from_torch_is_not_kept(exporter, trained_run, tmp_path):
    with pytest.raises(UserError, match=r"onnxruntime and torch differ by .* more than 0.0001, so nothing was written"):
        export_onnx(trained_run, tmp_path / "new" / "fold.onnx", fold=0)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_failed_check_keeps_the_earlier_file(exporter, trained_run, tmp_path):
    (tmp_path / "fold.onnx").write_text("an earlier one")
    with pytest.raises(UserError):
        export_onnx(trained_run, tmp_path / "fold.onnx", fold=0)
    assert (tmp_path / "fold.onnx").read_text() == "an earlier one"


def test_one_view_of_a_run_without_d4_gives_no_message(exporter, trained_run, tmp_path, capsys):
    export_onnx(trained_run, tmp_path / "refit.onnx")
    assert "D4 views" not in capsys.readouterr().err  # this run predicts without them


def test_one_view_of_a_run_with_eight_gives_a_message(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "largest_differences", lambda *_: {"logit": 0.0})
    monkeypatch.setattr(exporting, "write_onnx", lambda path, *_: path.touch())
    export_onnx(finished.path, tmp_path / "fold.onnx", fold=0)
    assert "--d4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"fold": 7}, r"--fold 7: .* has no such finished fold; it has 0, 1"),
        ({"round": 1}, r"--round 1: .* has no pseudo-label rounds"),
        ({"data": "nowhere"}, r"nowhere: no such dataset"),
    ],
)
def test_absent_folds_rounds_and_datasets_are_refused(trained_run, tmp_path, monkeypatch, options, problem):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=problem):
        export_onnx(trained_run, tmp_path / "new.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run there"):
        export_onnx(tmp_path / "nowhere", tmp_path / "new.onnx")
