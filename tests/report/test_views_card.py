"""The gain of test-time views: a gain is stated only where its interval excludes zero."""

import pytest
from laid_out import markup

from pcam_ssl.report.scores import SHOWN, gain_sentence, views_section
from pcam_ssl.runs.contents import read_facts


def views(low, value, high, count=8, reason=None) -> dict:
    gain = {"value": value, "low": low, "high": high, "reason": reason}
    return {"count": count, "gain": dict.fromkeys(SHOWN, gain), "one_view": dict.fromkeys(SHOWN, gain)}


@pytest.mark.parametrize(
    ("gain", "sentence"),
    [
        ((0.001, 0.004, 0.007), "The mean of 8 views gains +0.004 AUROC over one view."),
        ((-0.007, -0.004, -0.001), "The mean of 8 views is worse than one view, by -0.004 AUROC."),
        ((-0.001, 0.002, 0.005), "The mean of 8 views has no measurable gain in AUROC (+0.002), at 8 times the cost of one view."),
    ],
)
def test_the_sentence_follows_the_interval(gain, sentence):
    assert gain_sentence(views(*gain)) == sentence


def test_without_an_interval_nothing_is_claimed():
    assert gain_sentence(views(None, 0.01, None, reason="one slide only")).endswith("is not known: one slide only.")


def test_one_view_all_views_and_difference_stand_in_a_row(write_run):
    facts = read_facts(write_run(marks={"views": views(0.001, 0.004, 0.007)}))
    auroc = facts.scores["out_of_fold"]["scores"]["auroc"]["value"]
    shown = markup(views_section(facts))
    assert '<th scope="row">AUROC</th><td>0.004<small>0.001 to 0.007</small></td>' in shown
    assert f"<td>{auroc:.3f}<small>" in shown
    assert "<td>+0.004<small>+0.001 to +0.007</small></td>" in shown


@pytest.mark.parametrize(
    ("recipe", "command", "reason"),
    [
        ("predict: {d4: false}", "baseline", "one view was scored"),
        ("predict: {d4: true}", "baseline", "an older pcam-ssl made the run"),
        ("predict: {d4: false, random_views: 2}", "baseline", "an older pcam-ssl made the run"),
        ("seed: 0", "blend", "a blend has no predictions of single views"),
    ],
)
def test_where_there_is_none_it_says_why(write_run, edit, recipe, command, reason):
    run = write_run()
    run.paths.recipe.write_text(recipe)
    edit(
        run.paths.provenance,
        lambda info: info.update(command=command, blend={"method": "mean", "max_correlation": None, "members": []}),
    )
    assert reason in views_section(read_facts(run)).absent
