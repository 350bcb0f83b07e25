"""The members of a blend, in the terminal and on its page."""

import pytest
import scored

from pcam_ssl.api import blend
from pcam_ssl.blending.report import blend_command, blend_text, blend_words, members_section
from pcam_ssl.files import read_json


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A blend by fitted weights of two like runs and one that harms. Do not write into it."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [scored.write_scored(folder / f"run {k}", seed=k) for k in (1, 2)]
    runs.append(scored.write_scored(folder / "<b>harmful", -scored.drawn(3)))
    return blend([str(run.path) for run in runs], out=folder / "blend", method="weights", max_correlation=0.99)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return blend([str(scored.write_scored(folder / f"run{k}", seed=k).path) for k in (1, 2)], out=folder / "blend")


def test_members_stand_with_score_weight_and_the_weights_of_each_fold(fitted):
    scores = read_json(fitted.paths.scores)
    text = blend_text(scores).splitlines()
    first, harmful = scores["blend"]["members"][0], text[3]
    assert text[0].split() == ["member", "AUROC", "weight", "by", "fold,", "fitted", "without", "its", "labels"]
    assert text[1].split() == ["run", "1", f"{first['auroc']:.3f}", f"{first['weight']:.3f}"] + [
        f"{weight:.2f}" for weight in first["nested"].values()
    ]
    assert harmful.startswith("<b>harmful") and harmful.endswith("dropped")


def test_the_gain_is_paired_and_against_the_best_member(fitted):
    blend = read_json(fitted.paths.scores)["blend"]
    text = " ".join(blend_text({"blend": blend}).split())
    assert f"Paired difference to {blend['best']}, the best member on these patches" in text
    assert f"{blend['against_best']['auroc']['value']:+.3f} (" in text


def test_only_fitted_weights_are_said_to_bear_a_trace_of_labels(fitted, plain):
    texts = [" ".join(blend_text(read_json(run.paths.scores)).split()) for run in (fitted, plain)]
    assert ["weights may contain a trace of them" in text for text in texts] == [True, False]


def test_the_page_lists_the_members_escaped_and_no_network(fitted):
    page = (fitted.path / "report.html").read_text()
    assert "Members of this blend: weights" in page and "&lt;b&gt;harmful" in page and "<b>harmful" not in page
    assert "no network; weights of 2 runs (run 1, run 2)" in page
    assert "unknown network" not in page


def test_another_run_has_no_such_section(tmp_path):
    assert members_section(read_json(scored.write_scored(tmp_path / "run").paths.scores)) is None


def test_the_command_repeats_the_blend(fitted, tmp_path):
    import shlex

    words = shlex.split(blend_command(fitted.info(), "out"))
    assert words[:2] == ["pcam-ssl", "blend"] and words[-6:] == ["--method", "weights", "--max-correlation", "0.99", "--out", "out"]
    again = blend(words[2:-6], out=tmp_path / "again", method="weights", max_correlation=0.99)
    assert (again.path / "oof.parquet").read_bytes() == (fitted.path / "oof.parquet").read_bytes()


def test_the_words_for_a_mean_name_its_members(plain):
    assert blend_words(plain.info()) == "no network; mean of 2 runs (run1, run2)"
