"""The events of metrics.jsonl as TensorBoard scalars; needs the extra `pcam-ssl[tensorboard]`."""

from pathlib import Path
from typing import Any

from pcam_ssl.errors import UserError


def tensorboard_log(folder: Path):
    """A function that takes an event of metrics.jsonl and writes its numbers at its step. Raises UserError where TensorBoard is absent."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "train.tensorboard: TensorBoard is not installed; pip install 'pcam-ssl[tensorboard]', or leave the key out"
        ) from None

    def write(event: dict[str, Any]) -> None:
        # A writer per event: a kept one would hold a thread and a file through kills and resumes.
        with SummaryWriter(str(folder), purge_step=event["step"]) as writer:
            for name, value in event.items():
                if isinstance(value, int | float) and name != "step":
                    writer.add_scalar(name, value, event["step"])

    return write
