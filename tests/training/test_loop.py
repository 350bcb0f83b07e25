import os
import signal

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.schema import Adam, AdamW, Constant, Plateau, Sgd
from pcam_ssl.training.checkpoint import Stopped
from pcam_ssl.training.loop import Plan, Training, fit, train_step
from pcam_ssl.training.optim import Schedule, build_optimizer

pytestmark = pytest.mark.trains

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
FP32 = Precision("fp32", False, "asked for")
STEPS = 4


class Small(nn.Module):
    """A network with a backbone that has a batch norm and dropout, and a head; as `models.network`, on 3 numbers instead of pixels."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(8, 1)
        self.frozen_in = []

    def freeze_backbone(self, frozen):
        self.frozen_in.append(frozen)
        self.backbone.requires_grad_(not frozen)

    def forward(self, values):
        return self.head(self.backbone(values)).squeeze(1)


class Method(nn.Module):
    def __init__(self, nan_at=None):
        super().__init__()
        self.network, self.nan_at, self.calls = Small(), nan_at, 0

    def forward(self, batch):
        self.calls += 1
        loss = nn.functional.binary_cross_entropy_with_logits(self.network(batch["values"]), batch["label"])
        return {"loss": loss * float("nan") if self.calls == self.nan_at else loss}


class Stream(torch.utils.data.Dataset):
    """Batches by step, as `data.streams.TrainStream`; `at` maps a step to what happens when it is asked for."""

    def __init__(self, at=None):
        self.at = at or {}

    def __getitem__(self, step):
        self.at.get(step, lambda: None)()
        values = torch.randn(32, 3, generator=torch.Generator().manual_seed(step))
        return {"values": values, "label": (values.sum(1) > 0).float()}


def new(schedule=None, ema=None, nan_at=None, epochs=3, optim=None) -> Training:
    torch.manual_seed(0)
    method = Method(nan_at)
    optimizer = build_optimizer(method, (optim or Sgd(lr=0.1)).model_dump(), CPU)
    rates = Schedule((schedule or Constant()).model_dump(), 0.1, epochs, STEPS)
    average = ModelEmaV3(method.network, ema, use_warmup=True) if ema else None
    return Training(method, optimizer, rates, average, torch.amp.GradScaler("cpu", enabled=False))


class Recorder:
    """What a training evaluated, kept, logged and rewound; scores and losses come from lists, by epoch."""

    def __init__(self, scores=(), losses=()):
        self.scores, self.losses = list(scores), list(losses)
        self.evaluated, self.kept, self.events, self.rewound = [], [], [], []

    def evaluate(self, network):
        self.evaluated.append(network)
        number = len(self.evaluated) - 1
        score = self.scores[number] if self.scores else None
        return {"score": score, "loss": self.losses[number] if self.losses else 1.0, "inner_auroc": score}

    def keep(self, training):
        self.kept.append(training.step)


def run(training, folder, recorder=None, stream=None, **plan) -> Recorder:
    recorder = recorder or Recorder()
    fit(
        training,
        stream or Stream(),
        Plan(**{"epochs": 3, "steps_per_epoch": STEPS, "seed": 5, **plan}),
        folder=folder,
        precision=FP32,
        world=ALONE,
        evaluate=recorder.evaluate,
        keep=recorder.keep,
        log=recorder.events.append,
        rewind=recorder.rewound.append,
        advance=lambda n, text: None,
    )
    return recorder


def equal(a: Training, b: Training) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.method.state_dict().values(), b.method.state_dict().values(), strict=True))


def test_every_step_is_trained_and_the_loss_falls(tmp_path):
    training = new()
    recorder = run(training, tmp_path, epochs=20)
    assert training.step == 80
    assert recorder.events[-1]["train_loss"] < 0.7 * recorder.events[0]["train_loss"], recorder.events


def test_each_epoch_logs_one_event_with_its_mean_loss(tmp_path):
    training, losses = new(), []
    step = train_step(training, training.method.train(), Stream()[0], Plan(3, STEPS, 5), FP32, ALONE)
    losses.append(step.item())
    training.step = 1
    for number in range(1, STEPS):
        losses.append(train_step(training, training.method, Stream()[number], Plan(3, STEPS, 5), FP32, ALONE).item())
        training.step += 1
    recorder = run(new(), tmp_path)
    assert [(event["step"], event["epoch"]) for event in recorder.events] == [(4, 1), (8, 2), (12, 3)]
    assert recorder.events[0]["train_loss"] == pytest.approx(sum(losses) / STEPS)


def test_the_last_epoch_is_kept_by_default(tmp_path):
    training = new()
    recorder = run(training, tmp_path, Recorder(scores=[0.9, 0.8, 0.7]))
    assert (recorder.kept, training.best) == ([12], {"epoch": 3})


def test_with_keep_best_the_first_of_equally_good_epochs_is_kept(tmp_path):
    training = new()
    recorder = run(training, tmp_path, Recorder(scores=[0.7, 0.8, 0.8]), keep_best=True)
    assert (recorder.kept, training.best) == ([4, 8], {"score": 0.8, "epoch": 2})


def test_epochs_without_a_score_fall_back_to_the_last(tmp_path):
    training = new()
    recorder = run(training, tmp_path, Recorder(scores=[None, None, None]), keep_best=True)
    assert (recorder.kept, training.best) == ([12], {"epoch": 3})


def test_without_average_the_network_itself_is_evaluated(tmp_path):
    training = new()
    assert run(training, tmp_path).evaluated == [training.method.network] * 3


def test_the_average_of_weights_is_what_is_evaluated(tmp_path):
    training = new(ema=0.9)
    recorder = run(training, tmp_path)
    assert recorder.evaluated == [training.ema.module] * 3
    assert not torch.equal(training.ema.module.head.weight, training.method.network.head.weight)


def test_the_average_by_hand():
    training = new(ema=0.5)
    training.ema.use_warmup = False
    weights = [training.method.network.head.weight.detach().clone()]
    for step in range(3):
        train_step(training, training.method.train(), Stream()[step], Plan(3, STEPS, 5), FP32, ALONE)
        training.step += 1
        weights.append(training.method.network.head.weight.detach().clone())
    expected = weights[1]  # timm's first update copies
    for weight in weights[2:]:
        expected = 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(training.ema.module.head.weight, expected)


def test_plateau_gets_the_evaluated_loss(tmp_path):
    recorder = run(new(Plateau(factor=0.5, patience=0)), tmp_path, Recorder(losses=[1.0, 2.0, 0.5]))
    assert [event["lr"] for event in recorder.events] == [0.1, 0.1, 0.05]


def test_gradients_are_clipped_to_the_norm():
    training = new()
    before = training.method.network.head.weight.detach().clone()
    training.optimizer = torch.optim.SGD(training.method.parameters(), lr=1.0)
    training.schedule = Schedule(Constant().model_dump(), 1.0, 3, STEPS)
    train_step(training, training.method.train(), Stream()[0], Plan(3, STEPS, 5, clip_norm=1e-3), FP32, ALONE)
    norm = torch.cat([p.grad.flatten() for p in training.method.parameters()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3)
    assert (training.method.network.head.weight - before).norm() <= 1e-3


@pytest.mark.parametrize("optim", [Sgd(), Adam(), AdamW()], ids=["sgd", "adam", "adamw"])
def test_the_head_trains_first_and_then_all(tmp_path, optim):
    training = new(optim=optim)
    start = training.method.network.backbone[0].weight.detach().clone()
    seen = []

    class Watching(Recorder):
        def evaluate(self, network):
            seen.append(torch.equal(network.backbone[0].weight, start))
            return super().evaluate(network)

    run(training, tmp_path, Watching(), head_first_epochs=2)
    assert training.method.network.frozen_in == [True, False]
    assert seen == [True, True, False]


def test_a_loss_that_is_not_finite_stops_naming_the_step(tmp_path):
    with pytest.raises(UserError) as caught:
        run(new(nan_at=6), tmp_path)
    assert str(caught.value).startswith("training stopped: the loss of step 6 is nan; lower optim.lr")
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 4


@pytest.mark.parametrize("step", [1, 3, 4, 6, 11])
def test_a_stop_at_any_step_resumes_to_the_same_weights(tmp_path, step):
    whole, recorder = new(ema=0.9), Recorder()
    run(whole, tmp_path / "whole", recorder)

    (tmp_path / "parts").mkdir()
    first = Recorder()
    with pytest.raises(Stopped, match=r"stopped at step \d+ of 12, state saved; the same command goes on from here"):
        run(new(ema=0.9), tmp_path / "parts", first, Stream({step: lambda: os.kill(os.getpid(), signal.SIGINT)}))
    resumed, second = new(ema=0.9), Recorder()
    torch.manual_seed(99)  # whatever the random state is
    run(resumed, tmp_path / "parts", second)

    assert equal(resumed, whole)
    assert torch.equal(resumed.ema.module.head.weight, whole.ema.module.head.weight)
    events = [{key: value for key, value in event.items() if key != "seconds"} for event in first.events + second.events]
    assert events == [{key: value for key, value in event.items() if key != "seconds"} for event in recorder.events]
    assert second.rewound == [step + 1]


def test_a_stop_during_the_last_evaluation_is_obeyed(tmp_path):
    class Interrupted(Recorder):
        def evaluate(self, network):
            if len(self.evaluated) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().evaluate(network)

    with pytest.raises(Stopped, match="stopped at step 12 of 12, state saved"):
        run(new(), tmp_path, Interrupted())
    recorder = run(new(), tmp_path)
    assert (recorder.evaluated, recorder.kept) == ([], [])


def test_checkpoints_within_an_epoch_are_saved_by_time(tmp_path):
    steps = []
    stream = Stream({step: lambda: steps.append(torch.load(tmp_path / "last.pt", weights_only=True)["step"]) for step in (2, 3)})
    run(new(), tmp_path, stream=stream, checkpoint_s=1e-9)
    assert steps == [2, 3]


@pytest.mark.parametrize("clip_norm", [0.05, 1e6, None])
def test_gradients_are_clipped_at_their_own_scale_not_at_that_of_fp16(clip_norm):
    steps = []
    for scale in (None, 2.0**16):
        training = new(optim=Sgd(lr=1.0, momentum=0, nesterov=False, weight_decay=0))
        training.scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        before = [parameter.detach().clone() for parameter in training.method.parameters()]
        train_step(training, training.method.train(), Stream()[0], Plan(3, STEPS, 5, clip_norm=clip_norm), FP32, ALONE)
        steps.append(torch.cat([(a - b).flatten() for a, b in zip(before, training.method.parameters(), strict=True)]) / 0.1)
    assert torch.allclose(*steps, rtol=1e-4, atol=1e-7)
    if clip_norm == 0.05:
        assert steps[0].norm().item() == pytest.approx(clip_norm, rel=1e-3)


def test_a_step_is_seeded_by_its_number_alone():
    weights = []
    for seed in (1, 2):
        training = new()
        torch.manual_seed(seed)
        train_step(training, training.method.train(), Stream()[0], Plan(3, STEPS, 5), FP32, ALONE)
        weights.append(training.method.network.head.weight.detach().clone())
    assert torch.equal(*weights)
