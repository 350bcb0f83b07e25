"""A change that should not move numbers must not move these.

They were written by `pytest tests/guarantees/test_golden.py --write-golden`, on one thread of a CPU in fp32; do so again only
with a change that is meant to move them, and say so in the commit.
"""

import json
from pathlib import Path

import pytest

from pcam_ssl.records import read_metrics

GOLDEN = Path(__file__).parents[1] / "golden"
RECIPES = {
    "sgd": ["optim.name=sgd", "optim.lr=0.01", "schedule.name=cosine", "train.epochs=3"],
    "adamw-ema-focal": ["optim.lr=1e-3", "train.ema_decay=0.9", "method.loss=focal", "views.policy=strong", "train.epochs=3"],
}


@pytest.mark.parametrize("name", RECIPES)
def test_losses_are_the_golden_ones(train, tmp_path, name, request):
    run = train(tmp_path / "run", *RECIPES[name])
    keys = ("train_loss", "lr", "inner_nll")
    losses = {f"fold-{k}": [[event[key] for key in keys] for event in read_metrics(run.fold(k) / "metrics.jsonl")] for k in (0, 1)}
    path = GOLDEN / f"{name}.json"
    if request.config.getoption("--write-golden"):
        path.write_text(json.dumps(losses, indent=1) + "\n")
    golden = json.loads(path.read_text())
    for fold in golden:
        for epoch, (seen, expected) in enumerate(zip(losses[fold], golden[fold], strict=True), 1):
            assert seen == pytest.approx(expected, rel=1e-4), f"{fold}, epoch {epoch}: {keys}"
