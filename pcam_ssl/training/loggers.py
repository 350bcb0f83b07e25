"""The events of a training: metrics.jsonl, and its mirrors in TensorBoard or MLflow (extras `pcam-ssl[tensorboard]` and `pcam-ssl[mlflow]`)."""

import json
import logging
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import read_json, write_json, write_text
from pcam_ssl.records import read_metrics

FILE, DATABASE = "mlflow.json", "mlflow.db"
LONGEST_VALUE = 500


class Metrics:
    """`metrics.jsonl`: one JSON object a line, appended and flushed; each carries `step`."""

    def __init__(self, path: Path):
        self.path = path

    def rewind(self, step: int) -> None:
        """Drop lines after `step`, which a resumed run will write again, and a line that a kill cut short."""
        kept = [json.dumps(event) + "\n" for event in read_metrics(self.path) if event["step"] <= step]
        write_text(self.path, "".join(kept))

    def write(self, **event: Any) -> None:
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(event) + "\n")


def mlflow_log(folder: Path, recipe: dict[str, Any]):
    """A function that takes an event of metrics.jsonl and logs its numbers at its step, in the MLflow run of the unit's `folder`.

    It logs to $MLFLOW_TRACKING_URI, else to RUN/mlflow.db. The experiment is named by the path of the run folder; the flat `recipe`
    becomes params. A resumed unit continues its MLflow run and logs no event twice.
    Raises UserError where MLflow is not installed or its server does not answer.
    """
    try:
        from mlflow import MlflowClient, MlflowException
        from mlflow.entities import Metric
    except ImportError:
        raise UserError("train.mlflow: MLflow is not installed; pip install 'pcam-ssl[mlflow]', or leave the key out") from None

    # Hide MLflow's messages about creating database tables.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    run = folder.parent.resolve()
    address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run / DATABASE}"
    with _one_line(address, MlflowException):
        client = MlflowClient(tracking_uri=address)
        if not (folder / FILE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / FILE, {"run_id": _begin(client, run, folder.name, recipe), "uri": address, "step": -1})
    logged = read_json(folder / FILE, {"run_id": str, "step": int}, "delete it: a new MLflow run is begun")

    def write(event: dict[str, Any]) -> None:
        if event["step"] <= logged["step"]:
            return
        now = int(time.time() * 1000)
        numbers = {name: value for name, value in event.items() if isinstance(value, int | float) and name != "step"}
        with _one_line(address, MlflowException):
            client.log_batch(logged["run_id"], [Metric(name, float(value), now, event["step"]) for name, value in numbers.items()])
        logged["step"] = event["step"]
        write_json(folder / FILE, logged)

    return write


def _begin(client, run: Path, unit: str, recipe: dict[str, Any]) -> str:
    from mlflow.entities import Param

    experiment = client.get_experiment_by_name(str(run))
    number = experiment.experiment_id if experiment else client.create_experiment(str(run))
    begun = client.create_run(number, run_name=f"{run.name} {unit}", tags={"pcam_ssl.run": str(run), "pcam_ssl.unit": unit})
    client.log_batch(begun.info.run_id, params=[Param(key, str(value)[:LONGEST_VALUE]) for key, value in recipe.items()])
    return begun.info.run_id


@contextmanager
def _one_line(address: str, failure: type[Exception]):
    try:
        yield
    except failure as error:
        reason = first_line(error)
        raise UserError(
            f"train.mlflow: {address} takes no events ({reason}); fix that, set MLFLOW_TRACKING_URI, or leave the key out"
        ) from None


def tensorboard_log(folder: Path):
    """A function that takes an event of metrics.jsonl and writes its numbers at its step. Raises UserError where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "train.tensorboard: TensorBoard is not installed; pip install 'pcam-ssl[tensorboard]', or leave the key out"
        ) from None

    def write(event: dict[str, Any]) -> None:
        # A new writer per event: a lasting one keeps a thread and a file open, which kills and resumes would leave behind.
        with SummaryWriter(str(folder), purge_step=event["step"]) as writer:
            for name, value in event.items():
                if isinstance(value, int | float) and name != "step":
                    writer.add_scalar(name, value, event["step"])

    return write
