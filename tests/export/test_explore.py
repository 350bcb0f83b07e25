import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.export import atlas as explore_table
from pcam_ssl.export import atlas as exploring
from pcam_ssl.export.atlas import explore
from pcam_ssl.export.embeddings import export_embeddings
from pcam_ssl.tables import read_table

COLUMNS = [
    *("id", "thumbnail", "x", "y", "label", "class", "prob", "call", "fold", "slide", "split", "decision", "reason", "neighbours")
]


@pytest.fixture(scope="module")
def written(trained_run, tmp_path_factory):
    """All patches of `trained_run`, five neighbours each."""
    file = tmp_path_factory.mktemp("explore") / "all.parquet"
    explore(trained_run, file, neighbours=5)
    return file


@pytest.fixture(scope="module")
def rows(written) -> pd.DataFrame:
    return pq.read_table(written).to_pandas()


def test_every_patch_is_a_row_with_the_documented_columns(written, rows, unknown_slides):
    patches = open_dataset(unknown_slides).patches
    assert rows.columns.tolist() == COLUMNS
    assert rows.id.tolist() == patches.id.tolist() and rows.split.tolist() == patches.split.tolist()
    assert pq.read_table(written)["slide"].to_pylist() == patches.wsi.astype(object).where(patches.wsi.notna(), None).tolist()


def test_a_thumbnail_is_a_jpeg_of_the_patch(rows, unknown_slides):
    pixels = open_dataset(unknown_slides).pixels
    for n in (0, 96):
        image = Image.open(io.BytesIO(rows.thumbnail[n]["bytes"]))
        assert image.format == "JPEG" and image.size == (32, 32)
        assert np.abs(np.asarray(image).astype(float) - pixels[n]).mean() < 8


def test_scores_are_those_of_the_run(rows, trained_run):
    oof = read_table(trained_run / "oof.parquet")[0].set_index("id")
    assert rows.set_index("id").prob[oof.index].tolist() == oof.prob.tolist()


def test_labels_and_calls_are_words(rows):
    known = rows[rows.label.notna()]
    assert (known["class"] == known.label.map({0.0: "normal", 1.0: "tumor"})).all()
    right = (known.prob >= 0.5) == (known.label == 1)
    assert (known.call == right.map({True: "right", False: "wrong"})).all()
    assert rows[rows.label.isna()][["class", "call"]].isna().all(axis=None) and rows.label.isna().any()


def test_neighbours_are_the_nearest_rows_of_other_slides(rows, trained_run, tmp_path):
    """Against a plain double loop over the exported embeddings."""
    export_embeddings(trained_run, tmp_path / "e.parquet")
    vectors = np.stack(pq.read_table(tmp_path / "e.parquet")["embedding"].to_numpy())
    known = np.flatnonzero(rows.slide.notna())
    for n in known[::9]:
        allowed = [m for m in range(len(rows)) if m != n and rows.slide[m] != rows.slide[n]]
        distance = 1 - vectors[allowed] @ vectors[n]
        found = rows.neighbours[n]
        assert rows.slide[found["ids"]].ne(rows.slide[n]).all()
        np.testing.assert_allclose(found["distances"], np.sort(distance)[:5], atol=1e-5)
        np.testing.assert_allclose(1 - vectors[found["ids"]] @ vectors[n], found["distances"], atol=1e-5)


def test_a_patch_of_unknown_slide_finds_neither_itself_nor_its_duplicate(rows):
    first, twin = rows.index[rows.split == "test"][0], rows.index[rows.id == "twin"][0]
    assert rows.neighbours[twin]["ids"].size
    assert not {first, twin} & {*rows.neighbours[twin]["ids"], *rows.neighbours[first]["ids"]}


def test_the_map_is_of_the_embeddings(rows):
    flat = rows[["x", "y"]].to_numpy()
    assert np.isfinite(flat).all() and (flat.std(axis=0) > 0).all()
    assert flat[rows.id == "twin"] == pytest.approx(flat[rows.index[rows.split == "test"][:1]], abs=1e-6)


def test_the_size_of_row_groups_does_not_matter(written, trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(explore_table, "ROW_GROUP", 10)
    explore(trained_run, tmp_path / "groups.parquet", neighbours=5)
    assert pq.ParquetFile(tmp_path / "groups.parquet").num_row_groups == 10
    assert pq.read_table(tmp_path / "groups.parquet").equals(pq.read_table(written))


def test_a_sample_is_drawn_by_the_seed_and_reported(finished, tmp_path, capsys):
    for name in ("a", "b"):
        explore(finished.path, tmp_path / f"{name}.parquet", sample=20, neighbours=0)
    table = pq.read_table(tmp_path / "a.parquet")
    assert "20 of 96 patches, drawn at random; --sample 0 takes all" in capsys.readouterr().err
    assert table.num_rows == 20 and table.equals(pq.read_table(tmp_path / "b.parquet"))
    assert table["neighbours"].type == pa.struct({"ids": pa.list_(pa.int64()), "distances": pa.list_(pa.float32())})
    assert all(each["ids"] == [] for each in table["neighbours"].to_pylist())


def test_a_split_of_one_patch_has_no_neighbours(finished, tmp_path):
    explore(finished.path, tmp_path / "one.parquet", split="test", sample=1)
    assert pq.read_table(tmp_path / "one.parquet")["neighbours"].to_pylist() == [{"ids": [], "distances": []}]


def test_a_run_without_rounds_has_no_decisions(rows):
    assert rows[["decision", "reason"]].isna().all(axis=None)


def test_decisions_are_those_of_the_round_that_made_the_network(two_rounds, tmp_path):
    explore(two_rounds, tmp_path / "e.parquet", round=1, fold=1)
    rows = pq.read_table(tmp_path / "e.parquet").to_pandas().set_index("id")
    decisions = read_table(two_rounds / "round-1" / "fold-1" / "pseudo.parquet")[0].set_index("id")
    added = decisions[decisions.decision == "added"]
    assert len(added) and (rows.decision[added.index] == "added as " + added.label.map({0: "normal", 1: "tumor"})).all()
    assert (rows.decision[decisions.index.difference(added.index)] == "left out").all()
    assert (rows.reason[decisions.index] == decisions.reason).all()
    assert rows.decision[rows.index.difference(decisions.index)].isna().all()


def test_absent_decisions_are_refused(two_rounds_copy, tmp_path):
    (two_rounds_copy / "round-1" / "fold-0" / "pseudo.parquet").unlink()
    with pytest.raises(UserError, match=r"pseudo.parquet: .*; run `pcam-ssl pseudo-label` again"):
        explore(two_rounds_copy, tmp_path / "e.parquet", round=1, fold=0)
    assert list(tmp_path.glob("*.parquet")) == []


def test_the_default_file_is_in_the_folder_of_the_round(two_rounds_copy):
    facts = explore(two_rounds_copy, round=2, split="test", fold=0)
    assert facts["file"] == str(two_rounds_copy / "round-2" / "explore.parquet")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"split": "holdout"}, "no patches in split holdout; it has test, train, valid"),
        ({"fold": 5}, "--fold 5: .* has no such finished fold"),
        ({"method": "tsne"}, "map tsne: choose pca or umap"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(finished, tmp_path, options, problem):
    with pytest.raises(UserError, match=problem):
        explore(finished.path, tmp_path / "e.parquet", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_map_keeps_the_earlier_file(finished, tmp_path, monkeypatch):
    (tmp_path / "e.parquet").write_text("an earlier one")
    monkeypatch.setattr(exploring, "embedding_map", lambda *_: (_ for _ in ()).throw(UserError("no map")))
    with pytest.raises(UserError, match="no map"):
        explore(finished.path, tmp_path / "e.parquet", split="test")
    assert (tmp_path / "e.parquet").read_text() == "an earlier one"
    assert [path.name for path in tmp_path.iterdir()] == ["e.parquet"]
