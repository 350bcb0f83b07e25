"""A Run to hold: what it reads, predicts and shows."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import pcam_ssl as pcam
from pcam_ssl.files import read_json
from pcam_ssl.tables import read_predictions

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def metric(slides, tiny, tmp_path_factory) -> pcam.Run:
    """A finished tiny metric run with a refit network and kNN. Do not write into it."""
    settings = tiny("method.name=metric", "method.projection=8", "neighbours.k=5", "train.batch_size=8")
    return pcam.train(slides, settings=settings, out=tmp_path_factory.mktemp("runs") / "metric")


def test_a_run_holds_what_its_folder_says(finished, slides):
    run = pcam.open_run(finished.path)
    file = read_json(finished.paths.scores)
    assert run.scores["auroc"].value == file["out_of_fold"]["scores"]["auroc"]["value"]
    assert run.scores.file == file
    pd.testing.assert_frame_equal(run.oof, read_predictions(finished.paths.oof))
    assert set(run.test.fold) == {-1, *range(len(run.scores.per_fold))}
    assert set(run.folds.id) == set(run.oof.id)
    assert run.recipe.predict.d4 is True
    assert run.dataset.digest == pcam.open_dataset(slides).digest


def test_a_score_prints_itself_with_its_interval(finished):
    score = finished.scores["auroc"]
    assert str(score) == f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f}), slides resampled"
    assert float(score) == score.value


def test_a_run_stands_for_its_folder(finished, tmp_path):
    assert pcam.open_run(finished).path == finished.path
    assert "AUROC" in repr(finished) and str(finished.path) in repr(finished)
    assert "not begun" in repr(pcam.Run(tmp_path / "new"))


def test_what_changes_in_the_folder_changes_in_the_run(finished, tmp_path):
    copy = pcam.Run(shutil.copytree(finished.path, tmp_path / "copy"))
    assert len(copy.oof)
    copy.paths.oof.unlink()
    with pytest.raises(pcam.UserError) as caught:
        _ = copy.oof
    assert (caught.value.where, caught.value.what) == (str(copy.paths.oof), "not there")


def test_a_network_takes_uint8_patches_and_gives_its_logits(finished):
    """The run has eight test-time views, so one view is asked of a network by hand."""
    network = finished.networks[0]
    patches = np.array(finished.dataset.pixels[:5])
    logits = network(patches)
    assert isinstance(network, torch.nn.Module) and logits.shape == (5,)
    assert torch.equal(logits, network(torch.from_numpy(patches)))
    by_hand = 1 / (1 + np.exp(-logits.detach().double().numpy() / network.temperature))
    np.testing.assert_allclose(network.prob(patches).numpy(), by_hand, rtol=1e-12)
    assert network.embedding(patches).norm(dim=1).detach().numpy() == pytest.approx(np.ones(5), abs=1e-5)
    assert len(finished.networks) == len(list(finished.networks)) == len(finished.scores.per_fold)


def test_the_networks_logits_are_those_of_the_run(train, tmp_path):
    run = train(tmp_path / "plain", "predict.d4=false")
    rows = run.oof[run.oof.fold == 1].merge(run.dataset.patches[["id", "row"]], on="id")
    logits = run.networks[1](np.asarray(run.dataset.pixels)[rows.row]).detach().numpy()
    np.testing.assert_allclose(logits, rows.logit, rtol=1e-4, atol=1e-5)


def test_scaled_patches_are_refused(finished):
    with pytest.raises(pcam.UserError, match="uint8") as caught:
        finished.networks[0](np.zeros((2, 32, 32, 3), np.float32))
    assert caught.value.where == "patches"


def test_a_network_without_a_classifier_has_an_embedding_alone(slides, tiny, tmp_path):
    settings = tiny(
        "method.name=metric",
        "method.projection=8",
        "method.classify=false",
        "neighbours.k=5",
        "train.epochs=1",
        "train.batch_size=8",
    )
    network = pcam.train(slides, settings=settings, out=tmp_path / "run").networks["refit"]
    patches = np.asarray(pcam.open_dataset(slides).pixels[:2])
    assert network.embedding(patches).shape == (2, 8)
    with pytest.raises(pcam.UserError, match=r"method\.classify=false"):
        network(patches)


def test_an_array_files_and_a_dataset_get_the_same_predictions(finished, slides, tmp_path):
    dataset = pcam.open_dataset(slides)
    pixels = np.asarray(dataset.pixels[:4])
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, patch in zip(files, pixels, strict=True):
        Image.fromarray(patch).save(file)
    by_dataset = finished.predict(dataset).mean.set_index("id").prob.loc[dataset.patches.id[:4]]
    by_array = finished.predict(pixels)
    assert by_array.scores is None and by_array.path is None
    # The batches are of other sizes, and a vector unit sums in another order.
    np.testing.assert_allclose(by_array.prob, by_dataset, rtol=1e-6)
    np.testing.assert_array_equal(pcam.predict(finished, files).prob, by_array.prob)


def test_predictions_with_labels_have_scores_and_a_file(finished, slides, tmp_path):
    found = pcam.predict(finished, slides, out=tmp_path / "new.parquet", split="valid")
    pd.testing.assert_frame_equal(found.table, read_predictions(tmp_path / "new.parquet"))
    assert len(found) == found.scores.report["n"] == 16
    assert "AUROC" in repr(found)


def test_a_table_of_neighbours_is_blended_as_on_the_command_line(finished, metric, command, tmp_path):
    table = metric.table("knn")
    blend = pcam.blend([metric, table], out=tmp_path / "one")
    assert command("blend", metric.path, f"{metric.path}:knn", "--out", tmp_path / "two").code == 0
    pd.testing.assert_frame_equal(blend.oof, pcam.Run(tmp_path / "two").oof)
    assert len(table.oof) == len(metric.oof)
    with pytest.raises(pcam.UserError, match="no network or recipe of its own"):
        _ = blend.recipe


def test_a_run_without_neighbours_has_no_such_table(finished):
    with pytest.raises(pcam.UserError) as caught:
        _ = finished.table("knn").oof
    assert caught.value.where == str(finished.path / "oof-knn.parquet")


def test_the_submission_is_copied(finished, tmp_path):
    if not finished.paths.submission.exists():
        with pytest.raises(pcam.UserError) as caught:
            finished.submission(tmp_path / "submission.csv")
        assert caught.value.where == str(finished.paths.submission)
        return
    finished.submission(tmp_path / "submission.csv")
    assert (tmp_path / "submission.csv").read_bytes() == finished.paths.submission.read_bytes()


def test_the_report_and_the_card_are_written_and_read(finished, tmp_path):
    copy = pcam.Run(shutil.copytree(finished.path, tmp_path / "copy"))
    copy.paths.report.unlink(missing_ok=True)
    copy.paths.card.unlink(missing_ok=True)
    with pytest.raises(pcam.UserError) as caught:
        _ = copy.card
    assert caught.value.next == f"`pcam-ssl report {copy.path}` writes it"
    report = copy.report(explain=False)
    assert report.path == copy.paths.report and copy.card.startswith("#")


def test_search_finds_and_shows_patches(metric, capsys):
    ids = metric.dataset.patches.id[:2].tolist()
    found = pcam.search(metric, ids, k=3)
    assert found.table["query"].unique().tolist() == ids and len(found.table) == 6
    assert (found.table["rank"].to_numpy().reshape(2, 3) == [1, 2, 3]).all()
    html = found._repr_html_()
    assert html.count("<img") == 2 * (1 + 3) and all(each[:8] in html for each in ids)
    found.show()
    assert ids[0] in capsys.readouterr().out


def test_one_id_needs_no_list(metric):
    first = metric.dataset.patches.id.iloc[0]
    assert pcam.search(metric, first, k=2).table["query"].tolist() == [first] * 2
    assert pcam.explain(metric, first, neighbours=0, out=metric.path.parent / "explained").page.exists()


def test_a_comparison_is_values_and_a_table(finished, tmp_path, slides, tiny):
    other = pcam.train(slides, settings=tiny("seed=1", f"cv.folds_file={finished.paths.folds}"), out=tmp_path / "other")
    comparison = pcam.compare([finished, other])
    assert comparison["first"] == comparison.table.run[0]
    assert comparison.table.auroc.tolist() == [float(run.scores["auroc"]) for run in (finished, other)]
    for shown in (comparison._repr_html_(), repr(comparison)):
        assert all(name in shown for name in comparison.table.run)


def test_a_run_shows_its_verdict_scores_and_files(finished):
    html = finished._repr_html_()
    assert "<table" in html and "AUROC" in html and str(finished.paths.oof) in html
    assert "<script" not in html


def test_an_unfinished_run_shows_what_is_missing(tmp_path):
    assert "no run there" in pcam.Run(tmp_path)._repr_html_()


def test_a_dataset_shows_its_counts(slides):
    dataset = pcam.open_dataset(slides)
    assert "96 patches of 32 px, 12 slides" in repr(dataset)
    html = dataset._repr_html_()
    assert all(word in html for word in ("train", "valid", "test", "tumor", "synthetic-train-000"))


def test_scores_show_themselves(finished):
    scores = finished.scores
    assert "<table" in scores._repr_html_() and "AUROC" in repr(scores)
    assert len(scores.per_slide) == finished.oof.wsi.nunique()


def test_embeddings_stand_for_their_folder(finished, slides, tmp_path):
    made = pcam.embed(slides, out=tmp_path / "embedded", run=finished, fold=0, split="train")
    assert made.vectors.shape == (len(made.ids), made.facts["dimension"])
    found = pcam.search(made, made.ids.id.iloc[0], k=2)
    assert len(found.table) == 2
