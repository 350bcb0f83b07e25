"""What a Run says of its folder."""

import pytest

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.runs.run import Run, run_in_use


def test_no_run_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(UserError, match=r"no run there; `pcam-ssl baseline --out .*` makes one"):
        Run(tmp_path).info()


def test_a_dataset_in_place_of_a_run_is_told_with_the_command_that_trains_one(slides):
    for asked in (lambda: Run(slides).info(), lambda: run_in_use(slides, number=1)):
        with pytest.raises(UserError) as refused:
            asked()
        assert (
            str(refused.value)
            == f"{slides}: is a dataset, and a run is needed; `pcam-ssl baseline --data {slides}` trains one on it"
        )


def test_rounds_on_a_dataset_train_no_round_0_in_its_folder(slides, command):
    done = command("pseudo-label", slides, "--data", slides)
    assert done.code == 2 and done.problems == [
        f"{slides}: is a dataset, and a run is needed; `pcam-ssl baseline --data {slides}` trains one on it"
    ]


def test_commands_that_messages_name_quote_paths(tmp_path):
    folder = tmp_path / "my runs"
    with pytest.raises(UserError) as refused:
        Run(folder).info()
    assert f"`pcam-ssl baseline --out '{folder}'`" in str(refused.value)
    with pytest.raises(UserError) as refused:
        run_in_use(folder, number=1)
    assert f"`pcam-ssl pseudo-label '{folder}'`" in str(refused.value)
    with pytest.raises(UserError) as refused:
        open_dataset(folder)
    assert f"`pcam-ssl data import SOURCE '{folder}'`" in str(refused.value)


def test_a_damaged_run_json(begun):
    begun.paths.provenance.write_text('{"command": "base')
    with pytest.raises(UserError, match=r"run.json: damaged \(.*\); delete .*, and the command that made it makes it again"):
        begun.info()


def test_update_keeps_other_facts(begun):
    begun.update(status="done")
    assert (begun.info()["status"], begun.info()["command"]) == ("done", "baseline")
