import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.export import embeddings as exporting
from pcam_ssl.export.embeddings import export_embeddings
from pcam_ssl.files import digest_file
from pcam_ssl.models.artefact import load_network
from pcam_ssl.tables import read_table


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """Embeddings of the whole dataset by the refit network."""
    file = tmp_path_factory.mktemp("parquet") / "all.parquet"
    facts = export_embeddings(trained_run, file)
    return file, facts


def plain_embeddings(folder, dataset):
    network, _ = load_network(folder, torch.device("cpu"))
    with torch.inference_mode():
        return network(torch.from_numpy(np.array(dataset.pixels)))["embedding"].numpy()


def vectors(file):
    return np.stack(pq.read_table(file)["embedding"].to_numpy())


def test_every_patch_has_its_embedding_label_and_slide(exported, trained_run, unknown_slides):
    dataset = open_dataset(unknown_slides)
    table = pq.read_table(exported[0])
    assert table.column_names == ["id", "label", "wsi", "split", "fold", "prob", "embedding"]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    for name in ("id", "split", "wsi", "label"):
        assert table[name].to_pylist() == dataset.patches[name].astype(object).where(dataset.patches[name].notna(), None).tolist()
    assert vectors(exported[0]) == pytest.approx(plain_embeddings(trained_run / "refit", dataset), abs=1e-5)


def test_scores_are_of_networks_that_never_saw_the_patch(exported, trained_run, unknown_slides):
    table = pq.read_table(exported[0]).to_pandas().set_index("id")
    oof = read_table(trained_run / "oof.parquet")[0].set_index("id")
    test = read_table(trained_run / "test.parquet")[0].query("fold == -1").set_index("id")
    for part in (oof, test):
        assert table.prob[part.index].tolist() == part.prob.tolist()
        assert table.fold[part.index].tolist() == part.fold.tolist()


def test_a_patch_that_no_network_scored_has_no_prob(train, tmp_path):
    """Under the official scheme all train patches train, and none scores them."""
    run = train(tmp_path / "run", "cv.scheme=official")
    export_embeddings(run.path, tmp_path / "e.parquet", fold=0)
    table = pq.read_table(tmp_path / "e.parquet").to_pandas()
    unscored = table.split == "train"
    assert unscored.sum() == 64 and table.prob.isna().equals(unscored) and table.fold.isna().equals(unscored)


def test_the_file_names_its_network(exported, trained_run):
    _, notes = read_table(exported[0])
    assert notes["unit"] == "refit"
    assert notes["network_digest"] == digest_file(trained_run / "refit" / "model.safetensors")


def test_the_size_of_row_groups_does_not_matter(exported, trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "ROW_GROUP", 10)
    export_embeddings(trained_run, tmp_path / "groups.parquet")
    assert pq.ParquetFile(tmp_path / "groups.parquet").num_row_groups == 10
    assert pq.read_table(tmp_path / "groups.parquet").equals(pq.read_table(exported[0]))


def test_one_split_by_one_fold(trained_run, unknown_slides, tmp_path):
    facts = export_embeddings(trained_run, tmp_path / "test.parquet", split="test", fold=1)
    dataset = open_dataset(unknown_slides)
    test = (dataset.patches.split == "test").to_numpy()
    assert (facts["n"], facts["unit"]) == (17, "fold-1")
    assert vectors(tmp_path / "test.parquet") == pytest.approx(plain_embeddings(trained_run / "fold-1", dataset)[test], abs=1e-5)


def test_without_a_refit_the_first_fold_embeds_with_a_message(finished, tmp_path, capsys):
    assert export_embeddings(finished.path, tmp_path / "e.parquet", split="test")["unit"] == "fold-0"
    assert "export: the network of fold-0, since the run has none on all slides" in capsys.readouterr().err


def test_a_round_embeds_with_its_own_network(two_rounds, tmp_path):
    export_embeddings(two_rounds, tmp_path / "e.parquet", round=2, fold=0)
    digest = digest_file(two_rounds / "round-2" / "fold-0" / "model.safetensors")
    assert read_table(tmp_path / "e.parquet")[1]["network_digest"] == digest


def test_an_earlier_file_is_replaced_whole_and_nothing_else_is_left(finished, tmp_path):
    (tmp_path / "e.parquet").write_text("an earlier one")
    export_embeddings(finished.path, tmp_path / "e.parquet", split="test")
    assert pq.read_table(tmp_path / "e.parquet").num_rows == 16
    assert [path.name for path in tmp_path.iterdir()] == ["e.parquet"]


def test_an_unknown_split_names_the_known_ones_and_nothing_is_written(finished, tmp_path):
    with pytest.raises(UserError, match="no patches in split holdout; it has test, train, valid"):
        export_embeddings(finished.path, tmp_path / "e.parquet", split="holdout")
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_finished_network_is_refused(finished, tmp_path):
    run = shutil.copytree(finished.path, tmp_path / "run")
    for k in (0, 1):
        shutil.rmtree(run / f"fold-{k}")
    with pytest.raises(UserError, match="no network is finished yet"):
        export_embeddings(run, tmp_path / "e.parquet")
    assert not (tmp_path / "e.parquet").exists()
