"""An audit of a run on datasets with faults: folds, embeddings, and suspicious labels."""

import numpy as np
import pytest
from audit_patches import clean_patches, row, write
from json_files import run_info
from scipy.special import logit

from pcam_ssl.audit.audit import audit
from pcam_ssl.audit.look_alikes import look_alike_findings
from pcam_ssl.cross_validation.checks import check_dataset
from pcam_ssl.data.duplicates import view_bits
from pcam_ssl.data.folds import Folds, labelled_rows, write_folds
from pcam_ssl.data.splits import make_folds
from pcam_ssl.errors import UserError
from pcam_ssl.files import write_json
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import predictions, write_table


@pytest.fixture
def plant(tmp_path):
    """plant(table, pixels): the dataset, and beside it a Run with its folds but without networks."""

    def plant(table, pixels, scheme="grouped"):
        dataset = write(tmp_path / "set", table, pixels)
        run = Run(tmp_path / "run")
        write_json(run.paths.provenance, run_info(dataset_digest=dataset.digest, dataset=str(dataset.path)))
        write_folds(make_folds(dataset.patches, scheme=scheme, n_folds=2, inner_share=0.4), run.paths.folds)
        return dataset, run

    return plant


def found(dataset, run):
    """What is not fine, as (level, check, count); that this run has no final network is left out."""
    findings = audit(dataset.path, run.path).findings
    return [(f.level, f.check, f.count) for f in findings if f.level != "ok" and f.check != "look-alikes"]


def opinions(run, name, dataset, probs):
    """Write Predictions that agree with every label but those of `probs`: {id: prob}."""
    rows = labelled_rows(dataset.patches)
    values = np.array([probs.get(name, 0.9 if label else 0.1) for name, label in zip(rows["id"], rows["label"], strict=True)])
    table = predictions(rows["id"], rows["label"], rows["wsi"], 0, logit(values), probs=values)
    write_table(run.path / f"{name}.parquet", table)


def test_nothing_is_found_in_a_clean_run(plant):
    dataset, run = plant(*clean_patches())
    opinions(run, "oof", dataset, {})
    opinions(run, "oof-knn", dataset, {})
    assert found(dataset, run) == []


def test_slides_split_by_a_random_run_are_leaks(plant):
    assert found(*plant(*clean_patches(), scheme="random")) == [
        ("leak", "slides in folds", 4),
        ("leak", "slides in folds", 3),
    ]


def test_a_folds_file_that_tears_one_slide_is_read_and_the_slide_is_named(plant):
    dataset, run = plant(*clean_patches())
    folds = make_folds(dataset.patches, n_folds=2, inner_share=0.4)
    frame = folds.frame.copy()
    frame.loc[frame["id"] == "b2", "fold"] = 1 - frame["fold"][frame["id"] == "b2"]
    frame[["inner_0", "inner_1"]] = False
    write_folds(Folds(frame, folds.grouping), run.paths.folds)
    (leak,) = audit(dataset.path, run.path).leaks
    assert leak.examples == ("b (2 folds)",)


def test_a_copy_in_the_slide_of_another_fold_is_a_leak(plant):
    table, pixels = clean_patches()
    for slide in "bcd":  # wherever `a` is scored, one of the others is in the other fold
        pixels[row(table, f"{slide}0")] = pixels[row(table, "a0")]
    assert found(*plant(table, pixels)) == [("leak", "exact duplicates", 1)]


def test_labels_that_network_and_knn_contradict_are_ranked(plant):
    dataset, run = plant(*clean_patches())
    opinions(run, "oof", dataset, {"a0": 0.8, "b1": 0.3, "c2": 0.9})
    opinions(run, "oof-knn", dataset, {"a0": 0.7, "b1": 0.1})
    result = audit(dataset.path, run.path)
    assert result.doubted["id"].tolist() == ["b1", "a0"]
    finding = next(f for f in result.findings if f.check == "suspicious labels")
    assert (finding.level, finding.count) == ("suspect", 2)
    assert finding.examples == ("b1 (label 1, doubt 0.63)", "a0 (label 0, doubt 0.56)")


def test_a_run_without_knn_is_noted(plant):
    dataset, run = plant(*clean_patches())
    opinions(run, "oof", dataset, {"a0": 0.8})
    finding = next(f for f in audit(dataset.path, run.path).findings if f.check == "suspicious labels")
    assert "(the run has no kNN predictions)" in finding.what


def test_tumor_share_by_split_and_fold(plant):
    result = audit(*(place.path for place in plant(*clean_patches())))
    assert result.by_split[["patches", "slides"]].to_numpy().tolist() == [[12, 2], [24, 4]]
    assert result.by_fold[["patches", "tumor_share"]].to_numpy().tolist() == [[12, 0.5], [12, 0.5]]


def test_a_run_of_another_dataset_is_refused(plant, tmp_path):
    _, run = plant(*clean_patches())
    table, pixels = clean_patches()
    other = write(tmp_path / "other", table, 255 - pixels)
    with pytest.raises(UserError, match=r"run: a run on .*set \(.*\), this is .*other \(.*\); audit that dataset"):
        audit(other.path, run.path)


def test_baseline_refuses_the_conflicts_that_an_audit_finds(plant):
    table, pixels = clean_patches()
    pixels[row(table, "a3")] = np.rot90(pixels[row(table, "a0")])
    dataset, _ = plant(table, pixels)
    assert [f.check for f in audit(dataset.path).findings if f.level == "problem"] == ["conflicting labels"]
    with pytest.raises(UserError, match=r"2 labelled patches are exact duplicates .*, first a0"):
        check_dataset(Recipe(), dataset)


@pytest.fixture(scope="module")
def refitted(train, tmp_path_factory):
    """A dataset in which a test patch is a train patch with noise, and a run on it with a final network."""
    folder = tmp_path_factory.mktemp("refitted")
    table, pixels = clean_patches()
    pixels[row(table, "test-a2")] = pixels[row(table, "d5")] + np.random.default_rng(0).integers(0, 3, (24, 24, 3), dtype=np.uint8)
    dataset = write(folder / "set", table, pixels)
    return dataset, train(folder / "run", "cv.refit=true", "train.batch_size=4", data=folder / "set")


def test_embeddings_name_look_alikes_that_no_hash_has_named(refitted):
    dataset, run = refitted
    pair = tuple(row(clean_patches()[0], name) for name in ("d5", "test-a2"))
    bits = view_bits(dataset.patches["view_hash"])
    distance = int(np.bitwise_count(bits[pair[0]] ^ bits[pair[1]]))
    assert distance > 0
    named, not_named = (look_alike_findings(run, dataset, near_bits, "cpu")[0] for near_bits in (distance - 1, distance))
    assert pair in named.rows
    assert pair not in not_named.rows


def test_the_audit_of_a_refitted_run_embeds_its_patches(refitted):
    dataset, run = refitted
    findings = audit(dataset.path, run.path, device="cpu").findings
    assert not any("no final network" in finding.what for finding in findings if finding.check == "look-alikes")
