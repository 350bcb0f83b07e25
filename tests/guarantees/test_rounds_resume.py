"""Guarantee 4 for rounds: killed anywhere, the same command ends with the same bits; another command is refused with the reason."""

import random
import shutil
import signal
import time

import pytest
from round_outputs import check_same, decisions, verdict

WHOLE = ("pseudo.planted_share=0.3", "pseudo.control=true")
"""With all that is trained: the precision check, rounds, and the control."""
MOMENTS = {
    "the precision check trains": ("planted/fold-0/last.pt", "round-1"),
    "decisions are written": ("round-1/fold-0/selection.json", "round-1/fold-0/model.safetensors"),
    "a round is aggregated": ("round-1/oof.parquet", "round-1/report.html"),
    "the next round trains": ("round-2/fold-1/last.pt", "round-2/oof.parquet"),
    "the control trains": ("control/fold-1/last.pt", "control/oof.parquet"),
    "the control is aggregated": ("control/oof.parquet", "rounds.json"),
}
"""By moment: the file whose coming is the sign to kill, and one that must not be there yet."""


@pytest.fixture(scope="module")
def uninterrupted(round_0, make_rounds, tmp_path_factory):
    path = shutil.copytree(round_0, tmp_path_factory.mktemp("whole") / "run")
    make_rounds(path, 2, *WHOLE)
    return path


@pytest.fixture
def begin(start, selection_words, fresh):
    """begin("a.b=c", ..., rounds=2): start rounds on `fresh` in a process of its own."""
    return lambda *more, rounds=2: start("pseudo-label", fresh, "--rounds", rounds, *selection_words(*WHOLE, *more))


def wait_for(path, process) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert process.process.is_alive(), process.err.read_text()
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.001)


def test_killed_at_chosen_moments_it_ends_with_the_same_bits(begin, fresh, uninterrupted):
    for moment, (sign, later) in MOMENTS.items():
        process = begin()
        wait_for(fresh / sign, process)
        process.signal(signal.SIGKILL)
        process.process.join()
        assert process.process.exitcode == -signal.SIGKILL, moment
        assert not (fresh / later).exists(), f"killed too late to test: {moment}"
    done = begin().wait()
    assert done.code == 0, done.err
    check_same(fresh, uninterrupted, 2)


def test_killed_at_five_random_points_it_ends_with_the_same_bits(begin, fresh, uninterrupted):
    # A point is a number of files that came; so it does not depend on how busy the machine is.
    there = paths(fresh)
    points = sorted(random.Random(4).sample(range(1, len(paths(uninterrupted) - there)), 5))
    came, killed = set(), 0
    for point in points:
        process = begin()
        while process.process.is_alive() and len(came) < point:
            came |= paths(fresh) - there
            time.sleep(0.001)
        process.signal(signal.SIGKILL)
        process.process.join()
        killed += process.process.exitcode == -signal.SIGKILL
    assert killed == 5
    done = begin().wait()
    assert done.code == 0, done.err
    check_same(fresh, uninterrupted, 2)


def paths(run) -> set:
    """What is in a run, but for the hidden files that are half written."""
    return {path.relative_to(run) for path in run.rglob("[!.]*") if path.is_file()}


def test_a_second_process_is_told_who_holds_the_rounds(begin, fresh):
    first = begin(rounds=1)
    wait_for(fresh / "round-1" / "fold-0" / "last.pt", first)
    first.signal(signal.SIGSTOP)
    try:
        second = begin(rounds=1).wait()
    finally:
        first.signal(signal.SIGCONT)
    assert second.code == 2
    (problem,) = second.problems
    assert problem.startswith(f"pseudo-label rounds of {fresh}: process {first.pid} on ")
    assert problem.endswith("is writing it; wait for it or stop it, or choose another --out")
    assert first.wait().code == 0


def test_ctrl_c_saves_and_says_how_to_go_on(begin, fresh, uninterrupted):
    process = begin()
    wait_for(fresh / "round-1" / "fold-1" / "last.pt", process)
    process.signal(signal.SIGINT)
    ended = process.wait()
    assert ended.code == 130 and "Traceback" not in ended.err
    assert begin().wait().code == 0
    check_same(fresh, uninterrupted, 2)


def test_another_selection_after_students_learned_is_refused_with_the_difference(two_rounds_copy, command, selection_words):
    before = verdict(two_rounds_copy)
    done = command("pseudo-label", two_rounds_copy, "--rounds", 3, *selection_words("pseudo.k_best=3"))
    assert done.code == 2
    assert done.problems == [
        f"{two_rounds_copy / 'round-1'}: begun with another recipe (pseudo.k_best: 5 -> 3); choose another --out, or delete that folder"
    ]
    assert not (two_rounds_copy / "round-3").exists()
    assert verdict(two_rounds_copy) == before


def test_another_selection_before_any_student_learned_is_made_again(fresh, two_rounds, make_rounds, capsys):
    make_rounds(fresh, 1, "pseudo.k_best=2", "pseudo.stop_share=0.99")
    assert len(decisions(fresh, 1, 0).label.dropna()) <= 4
    make_rounds(fresh, 1, "pseudo.stop_share=null")
    assert "selected with another recipe and not trained on yet" in capsys.readouterr().err
    assert decisions(fresh, 1, 0).equals(decisions(two_rounds, 1, 0))
    assert (fresh / "round-1" / "oof.parquet").exists()
    assert not [path for path in fresh.iterdir() if "dropped" in path.name]


def test_a_selection_that_was_stopped_goes_on_where_the_rule_is_lifted(fresh, make_rounds):
    make_rounds(fresh, 1, "pseudo.stop_share=0.99")
    selected = (fresh / "round-1" / "fold-0" / "selection.json").stat().st_mtime_ns
    assert make_rounds(fresh, 1)["stopped"] is None
    assert (fresh / "round-1" / "fold-0" / "selection.json").stat().st_mtime_ns == selected
    assert (fresh / "round-1" / "oof.parquet").exists()
