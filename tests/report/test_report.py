"""Reports with pictures from dataset and networks, on a real tiny run; missing parts have a reason, and the page is still written."""

import json
import shutil
import subprocess
import sys
from html import unescape

import numpy as np
import pandas as pd
import pytest
from json_files import rounds_info

from pcam_ssl.blending.blend import blend_runs
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.operating_point import Target
from pcam_ssl.files import write_json
from pcam_ssl.report.evidence import map_folds
from pcam_ssl.report.report import Asked, pictures_of, report_runs
from pcam_ssl.runs.contents import read_facts
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import predictions, read_table


@pytest.fixture
def copy(finished, tmp_path) -> Run:
    """A copy of a finished run of two folds."""
    return Run(shutil.copytree(finished.path, tmp_path / "run"))


@pytest.fixture(scope="module")
def pictures(finished):
    """What dataset and networks add to the report of a finished run."""
    return pictures_of(read_facts(finished), Asked(device="cpu"))


def report(run: Run, **asked):
    (told,) = report_runs([run.path], Target(), Asked(**{"device": "cpu"} | asked))
    return told


def test_the_galleries_are_the_most_confident_errors_and_least_confident_patches(pictures, finished):
    oof = read_table(finished.path / "oof.parquet")[0].set_index("id")
    assert len(pictures.unsure) == 12
    assert all(case.call != ("normal", "tumor")[case.label] for case in pictures.wrong)
    doubts = [abs(oof.prob[case.id] - 0.5) for case in pictures.unsure]
    assert doubts == sorted(doubts) == np.sort((oof.prob - 0.5).abs())[:12].tolist()


def test_each_patch_is_explained_by_the_fold_that_scored_it(pictures, finished):
    fold = read_table(finished.path / "oof.parquet")[0].set_index("id").fold
    for case in [*pictures.wrong, *pictures.unsure]:
        assert case.explained.id == case.id
        assert case.explained.folds == (fold[case.id],) == (case.fold,)


def test_neighbours_are_labelled_patches_of_other_slides(pictures):
    for case in [*pictures.wrong, *pictures.unsure]:
        assert len(case.neighbours) == len(case.neighbour_pixels) == 4
        assert all(each["wsi"] != case.wsi and each["label"] in (0, 1) for each in case.neighbours)
        cosines = [each["cosine"] for each in case.neighbours]
        assert cosines == sorted(cosines, reverse=True)


def test_a_map_holds_scored_patches_and_no_training_patches(pictures, finished):
    oof = read_table(finished.path / "oof.parquet")[0]
    assert [each.fold for each in pictures.maps] == [0, 1]
    for each in pictures.maps:
        mine = oof[oof.fold == each.fold]
        assert each.of == len(mine) == len(each.labels)
        assert sorted(each.slides) == sorted(mine.wsi)
        assert np.isfinite(each.places).all()


def test_the_page_shows_all_of_it_and_stays_small(copy):
    told = report(copy)
    page = told.path.read_text()
    cases, slides = len(told.pictures.wrong) + 12, len(told.pictures.slides)
    assert slides == 10
    assert page.count("<img") == cases * (2 + 4) + slides * 2
    assert page.count('class="map"') == 4
    assert told.path.stat().st_size < 3_000_000
    assert (copy.path / "model-card.md").read_text().startswith("# Model card: run\n")


def test_the_same_run_gives_the_same_page(copy):
    assert report(copy).path.read_bytes() == report(copy).path.read_bytes()


def test_json_and_markdown_say_what_the_page_says(copy):
    told = report(copy)
    facts = json.loads(json.dumps(told.to_dict(), allow_nan=False))
    assert [case["id"] for case in facts["pictures"]["least_sure"]] == [case.id for case in told.pictures.unsure]
    assert facts["scores"] == json.loads(copy.paths.scores.read_text())
    assert facts["absent"]["Nearest neighbours"].startswith("the run has no kNN scores")
    markdown = told.to_markdown()
    assert all(f"\n## {section['title']}\n" in markdown for section in facts["sections"][1:])
    assert f"patch {told.pictures.unsure[0].id}; evidence for" in markdown


def test_a_run_that_has_just_ended_has_its_page_with_patches_and_says_how_to_have_the_rest(finished):
    page = (finished.path / "report.html").read_text()
    assert page.count("<img") >= 12
    assert "this needs the run's networks; `pcam-ssl report RUN` adds it" in unescape(page)
    assert (finished.path / "model-card.md").exists()


@pytest.mark.processes
def test_without_asking_networks_torch_is_not_even_loaded(finished):
    code = (
        "import sys; from pathlib import Path; from pcam_ssl.runs.contents import read_facts; from pcam_ssl.runs.run import Run\n"
        "from pcam_ssl.report.report import Asked, pictures_of\n"
        f"assert len(pictures_of(read_facts(Run(Path({str(finished.path)!r}))), Asked(explain=False)).unsure) == 12\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_dataset_that_is_gone_is_said_in_every_part_that_needs_it(copy):
    info = json.loads(copy.paths.provenance.read_text())
    write_json(copy.paths.provenance, {**info, "dataset": "/gone/away"})
    absent = report(copy).to_dict()["absent"]
    for title in ("Most confident errors", "Least confident", "Embedding map"):
        assert absent[title] == f"{copy.path}: its dataset /gone/away is not there any more; say where it is with --data DATASET"


def test_a_dataset_that_has_moved_is_found_where_it_is_said_to_be(copy, slides):
    info = json.loads(copy.paths.provenance.read_text())
    write_json(copy.paths.provenance, {**info, "dataset": "/gone/away"})
    assert report(copy, data=slides).pictures.no_maps is None


def test_another_dataset_is_refused_and_nothing_is_written(copy, slides, rewrite, tmp_path):
    other = rewrite(slides, tmp_path / "other", lambda patches: patches.assign(label=1 - patches.label))
    before = (copy.path / "report.html").read_bytes()
    with pytest.raises(UserError, match="made from another dataset"):
        report(copy, data=other)
    assert (copy.path / "report.html").read_bytes() == before


def test_networks_that_are_gone_leave_the_patches_and_the_reason(copy):
    for weights in copy.path.glob("fold-*/model.safetensors"):
        weights.unlink()
    told = report(copy)
    assert len(told.pictures.unsure) == 12
    assert "its networks (fold-K/model.safetensors) are gone" in told.to_dict()["absent"]["Embedding map"]
    assert "Explanations are not shown: " in told.path.read_text()


def test_a_run_under_rounds_is_shown_by_its_own_networks(copy):
    write_json(copy.path / "rounds.json", rounds_info())
    facts = read_facts(copy)
    assert pictures_of(facts, Asked(device="cpu")).no_maps is None


def test_unknown_slides_still_have_neighbours_and_maps_by_label(train, slides, rewrite, tmp_path):
    data = rewrite(slides, tmp_path / "data", lambda patches: patches.assign(wsi=pd.array([None] * len(patches), dtype="str")))
    told = report(train(tmp_path / "run", data=data))
    for case in told.pictures.unsure:
        assert case.wsi is None and len(case.neighbours) == 4
        assert case.id not in [each["id"] for each in case.neighbours]
    assert all(each.neighborhood["same_slide"]["value"] is None for each in told.pictures.maps)
    assert told.path.read_text().count('class="map"') == len(told.pictures.maps)


def test_a_blend_says_that_it_has_no_network(finished, tmp_path):
    blend = blend_runs([str(finished.path)], tmp_path / "blend")
    told = report(blend)
    assert len(told.pictures.unsure) == 12
    assert "a blend has no network or recipe of its own" in told.to_dict()["absent"]["Embedding map"]


def test_a_map_that_is_not_known_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match="--map tsne: choose pca or umap"):
        report_runs([tmp_path], Target(), Asked(method="tsne"))


def test_a_map_by_umap_without_umap_is_refused_and_nothing_is_written(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    before = (copy.path / "report.html").read_bytes()
    with pytest.raises(UserError, match=r"UMAP is not installed; pip install 'pcam-ssl\[explore\]'"):
        report(copy, method="umap")
    assert (copy.path / "report.html").read_bytes() == before


def test_maps_are_of_the_lowest_the_middle_and_the_highest_fold():
    probs = {0: [0.1, 0.9], 1: [0.9, 0.1], 2: [0.5, 0.5], 3: [0.2, 0.9], 4: [0.9, 0.9]}
    tables = [predictions([f"{k}a", f"{k}b"], [0, 1 if k < 4 else 0], [None] * 2, k, [0.0] * 2, probs=p) for k, p in probs.items()]
    chosen = map_folds(pd.concat(tables), (0, 1, 2, 3, 4))
    assert chosen == {1: 0.0, 2: 0.5, 3: 1.0}


def test_few_folds_all_have_a_map_even_of_one_class():
    tables = [predictions([f"{k}a", f"{k}b"], [k, k], [None] * 2, k, [0.0] * 2) for k in (0, 1)]
    assert map_folds(pd.concat(tables), (0, 1)) == {0: None, 1: None}


def test_rounds_end_with_pages_that_show_their_verdict(two_rounds):
    said = json.loads((two_rounds / "rounds.json").read_text())["verdict"]
    for folder in (two_rounds, two_rounds / "round-1", two_rounds / "round-2"):
        assert said in unescape((folder / "report.html").read_text())
