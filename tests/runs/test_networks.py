import shutil

import pytest
from json_files import blend_info, rounds_info

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.files import write_json
from pcam_ssl.runs.networks import open_networks
from pcam_ssl.tables import read_table


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run of two folds."""
    return shutil.copytree(finished.path, tmp_path / "run")


def test_networks_stand_beside_their_dataset_and_folds(finished, slides):
    networks = open_networks(finished.path)
    assert (networks.finished, networks.refit) == ((0, 1), False)
    assert networks.dataset.digest == open_dataset(slides).digest
    assert networks.recipe.model.name == "test_resnet" and networks.folds.n_folds == 2


def test_a_fold_that_is_not_there_is_told_with_those_that_are(finished):
    networks = open_networks(finished.path)
    assert networks.fold(1) == finished.path / "fold-1"
    with pytest.raises(UserError, match=r"^--whole-fold 7: .* has no such finished fold; it has 0, 1$"):
        networks.fold(7, "--whole-fold")


def test_one_network_is_the_refit_where_there_is_one(trained_run):
    assert open_networks(trained_run).one(None, "export") == trained_run / "refit"
    assert open_networks(trained_run).one(1, "export") == trained_run / "fold-1"


def test_one_network_is_else_the_first_fold_and_that_is_said(finished, capsys):
    assert open_networks(finished.path).one(None, "export") == finished.path / "fold-0"
    assert "export: the network of fold-0, since the run has none on all slides; --fold K takes another" in capsys.readouterr().err


def test_predictions_are_out_of_fold_or_the_mean_over_folds(finished):
    scored = open_networks(finished.path).scored()
    oof, test = (read_table(finished.path / f"{name}.parquet")[0].set_index("id") for name in ("oof", "test"))
    assert scored.prob.dtype == "float64" and scored.index.is_unique
    assert scored.prob[oof.index].equals(oof.prob)
    mean = test[test.fold == -1]
    assert scored.prob[mean.index].equals(mean.prob) and len(scored) == len(oof) + len(mean)


def test_a_run_without_scores_has_no_predictions(copy):
    for name in ("oof", "test"):
        (copy / f"{name}.parquet").unlink()
    assert open_networks(copy).scored().empty


def test_a_fold_that_was_not_finished_is_left_out(copy):
    (copy / "fold-0" / "fold.json").unlink()
    assert open_networks(copy).finished == (1,)


def test_a_run_that_has_only_begun_is_told_to_go_on(copy):
    for k in (0, 1):
        (copy / f"fold-{k}" / "fold.json").unlink()
    with pytest.raises(UserError, match=r"run: no network is finished yet; run its command again, it goes on where it stopped$"):
        open_networks(copy)


def test_networks_that_were_deleted_are_told(copy):
    for k in (0, 1):
        (copy / f"fold-{k}" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"its networks \(fold-K/model\.safetensors\) are gone; copy them back"):
        open_networks(copy)


def test_a_blend_names_the_runs_that_have_networks(tmp_path):
    write_json(tmp_path / "run.json", blend_info("runs/a", "runs/b"))
    with pytest.raises(UserError, match=r"a blend has no network or recipe of its own; name one of its runs \(runs/a, runs/b\)$"):
        open_networks(tmp_path)


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no run there; `pcam-ssl baseline --out"):
        open_networks(tmp_path / "none")


def test_a_dataset_that_moved_is_named_by_data(copy, slides, tmp_path):
    run = open_networks(copy).run
    run.update(dataset=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"its dataset .*gone is not there any more; say where it is with --data DATASET$"):
        open_networks(copy)
    assert open_networks(copy, slides).dataset.path == slides


def test_of_pseudo_label_rounds_the_best_or_a_named_one_is_opened(copy, tmp_path, capsys):
    shutil.copytree(copy, copy / "round-1")
    write_json(copy / "rounds.json", rounds_info(round0=str(copy)))
    assert open_networks(copy).run.path == copy / "round-1"
    assert "uses round 1, the best on inner slides" in capsys.readouterr().err
    assert open_networks(copy, round=0).run.path == copy
    with pytest.raises(UserError, match=r"^--round 5: .* has rounds 0 to 1$"):
        open_networks(copy, round=5)
