"""Events of metrics.jsonl in MLflow's own database."""

import sys

import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.files import read_json
from pcam_ssl.training.loggers import DATABASE, mlflow_log

EVENTS = [{"step": step, "epoch": number, "train_loss": 1.0 / number, "inner_auroc": None} for number, step in ((1, 16), (2, 32))]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    mlflow = pytest.importorskip("mlflow")
    run = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for number in (0, 1):
            log = mlflow_log(run / f"fold-{number}", {"model.name": "resnet18", "data.label_budget": None, "optim.lr": 1e-3})
            for event in EVENTS:
                log(event)
        resumed = mlflow_log(run / "fold-1", {"model.name": "resnet18"})
        for event in (EVENTS[1], {"step": 48, "epoch": 3, "train_loss": 0.1}):
            resumed(event)
    return run, mlflow.MlflowClient(tracking_uri=f"sqlite:///{run / DATABASE}")


def of_fold(client, number: int):
    run, known = client
    return known.get_run(read_json(run / f"fold-{number}" / "mlflow.json")["run_id"])


def history(client, number: int, name: str) -> list[tuple[int, float]]:
    found = client[1].get_metric_history(of_fold(client, number).info.run_id, name)
    return [(metric.step, metric.value) for metric in found]


def test_numbers_are_logged_at_their_steps(client):
    assert history(client, 0, "train_loss") == [(16, 1.0), (32, 0.5)]
    assert history(client, 0, "epoch") == [(16, 1.0), (32, 2.0)]


def test_values_that_are_not_numbers_are_not_logged(client):
    assert set(of_fold(client, 0).data.metrics) == {"epoch", "train_loss"}


def test_each_unit_is_a_run_of_one_experiment_with_the_recipe_as_params(client):
    found = [of_fold(client, number) for number in (0, 1)]
    assert [each.info.run_name for each in found] == ["run fold-0", "run fold-1"]
    assert len({each.info.experiment_id for each in found}) == 1
    assert found[0].data.params == {"model.name": "resnet18", "data.label_budget": "None", "optim.lr": "0.001"}


def test_a_resumed_unit_continues_its_run_without_repeats(client):
    assert history(client, 1, "train_loss") == [(16, 1.0), (32, 0.5), (48, 0.1)]


def test_absent_mlflow_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"^train.mlflow: MLflow is not installed; pip install 'pcam-ssl\[mlflow\]', or leave"):
        mlflow_log(tmp_path / "fold-0", {})
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_takes_no_events_is_one_line(monkeypatch, tmp_path):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://nowhere")
    with pytest.raises(
        UserError, match=r"^train.mlflow: gopher://nowhere takes no events \(.*\); fix that, set MLFLOW_TRACKING_URI"
    ):
        mlflow_log(tmp_path / "fold-0", {})
