import pytest
import timm
import torch
from torch import nn

from pcam_ssl.recipe.schema import Adam, AdamW, Constant, Cosine, Cyclic, OneCycle, Plateau, Sgd
from pcam_ssl.training.optim import Schedule, build_optimizer

LR, EPOCHS, STEPS = 0.1, 4, 10


def schedule(section, epochs=EPOCHS, steps=STEPS) -> Schedule:
    return Schedule(section.model_dump(), LR, epochs, steps)


def rates(section, **size) -> list[float]:
    built = schedule(section, **size)
    return [built.at(step) for step in range(built.total)]


def test_constant_is_constant():
    assert rates(Constant()) == [LR] * 40


def test_one_cycle_starts_peaks_and_ends_at_its_factors():
    # 41 steps, so that the peak falls on a step: 0.25 x 40 = 10.
    seen = rates(OneCycle(rise_share=0.25, start_factor=0.04, final_factor=1e-4), epochs=1, steps=41)
    assert seen[0] == pytest.approx(0.04 * LR)
    assert seen[10] == LR
    assert seen[40] == pytest.approx(1e-4 * LR)


def test_one_cycle_rises_and_falls_as_half_cosines():
    seen = rates(OneCycle(rise_share=0.25, start_factor=0.2, final_factor=0.0), epochs=1, steps=41)
    assert seen[5] == pytest.approx(LR * (0.2 + 1) / 2)
    assert seen[25] == pytest.approx(LR / 2)
    assert seen[:11] == sorted(seen[:11])
    assert seen[10:] == sorted(seen[10:], reverse=True)


def test_one_cycle_of_a_single_step_is_finite():
    assert all(0 < rate <= LR for rate in rates(OneCycle(), epochs=1, steps=1))


def test_cosine_goes_from_the_rate_to_the_final_factor():
    seen = rates(Cosine(final_factor=0.2), epochs=1, steps=41)
    assert (seen[0], seen[20], seen[40]) == (LR, pytest.approx(0.6 * LR), pytest.approx(0.2 * LR))


def test_cyclic_is_a_triangle():
    seen = rates(Cyclic(cycle_epochs=2, low_factor=0.1), epochs=4, steps=4)
    low, middle = 0.1 * LR, 0.55 * LR
    assert seen[0:16:2] == pytest.approx([low, middle, LR, middle, low, middle, LR, middle])


def test_warm_up_rises_linearly_to_the_schedule():
    seen = rates(Constant(warmup_epochs=0.5))
    assert seen[:6] == pytest.approx([0.2 * LR, 0.4 * LR, 0.6 * LR, 0.8 * LR, LR, LR])


def plateau(losses: list[float], **options) -> list[float]:
    """The rate of the epoch after each loss."""
    built = schedule(Plateau(**options))
    seen = []
    for loss in losses:
        built.epoch_end(loss)
        seen.append(built.at(0))
    return seen


def test_plateau_cuts_the_rate_after_patience_epochs():
    assert plateau([1, 1, 1, 1, 1, 1], factor=0.5, patience=2) == [LR, LR, LR, LR / 2, LR / 2, LR / 2]


def test_plateau_counts_from_zero_after_a_better_loss():
    assert plateau([1, 2, 2, 0.9, 2, 2, 2], factor=0.5, patience=2)[-2:] == [LR, LR / 2]


def test_plateau_counts_from_zero_after_a_cut():
    assert plateau([1, 1, 1, 1, 1], factor=0.5, patience=1) == [LR, LR, LR / 2, LR / 2, LR / 4]


def test_plateau_stops_at_the_lowest_factor():
    assert plateau([1] * 6, factor=0.5, patience=0, min_factor=0.2)[-1] == pytest.approx(0.2 * LR)


def test_plateau_continues_from_its_state():
    first, second = schedule(Plateau(patience=1)), schedule(Plateau(patience=1))
    first.epoch_end(1.0)
    first.epoch_end(1.0)
    second.load_state_dict(first.state_dict())
    second.epoch_end(1.0)
    assert second.at(0) == LR / 2


def test_only_plateau_uses_losses():
    built = schedule(Constant())
    for _ in range(50):
        built.epoch_end(1.0)
    assert built.at(0) == LR


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 1)


def decays(section) -> dict[str, float]:
    return decays_of(Small(), section)


def decays_of(module: nn.Module, section) -> dict[str, float]:
    optimizer = build_optimizer(module, section.model_dump(), torch.device("cpu"))
    of = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    return {name: of[id(parameter)] for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("section", [AdamW(weight_decay=0.3), Sgd(weight_decay=0.3)], ids=["adamw", "sgd"])
def test_weight_decay_spares_biases_and_norms(section):
    weights = {"conv.weight", "head.weight"}
    assert decays(section) == {name: 0.3 if name in weights else 0.0 for name in decays(section)}


@pytest.mark.parametrize(
    ("name", "spared"),
    [
        ("test_vit", {"pos_embed", "cls_token"}),
        ("test_vit2", {"pos_embed", "reg_token"}),
        ("test_maxvit", None),
    ],
)
def test_weight_decay_spares_parameters_exempted_by_a_nested_backbone(name, spared):
    backbone = timm.create_model(name, num_classes=0, img_size=32)
    spared = (
        {each for each in backbone.no_weight_decay() if each in dict(backbone.named_parameters())} if spared is None else spared
    )
    assert spared
    module = nn.ModuleDict({"network": nn.ModuleDict({"backbone": backbone, "head": nn.Linear(4, 1)})})
    of = decays_of(module, AdamW(weight_decay=0.3))
    expected = {f"network.backbone.{each}" for each in spared} | {
        each for each, value in module.named_parameters() if value.ndim <= 1
    }
    assert {each for each, decay in of.items() if decay == 0} == expected


def test_a_backbone_may_exempt_by_pattern():
    module = Small()
    module.no_weight_decay = lambda: {"co*.weight"}
    assert decays_of(module, AdamW(weight_decay=0.3))["conv.weight"] == 0
    assert decays_of(module, AdamW(weight_decay=0.3))["head.weight"] == 0.3


def test_plain_adam_also_decays_tokens():
    assert set(decays_of(timm.create_model("test_vit", num_classes=0), Adam(weight_decay=0.3)).values()) == {0.3}


def test_plain_adam_decays_everything_as_published():
    assert set(decays(Adam(weight_decay=0.3)).values()) == {0.3}


@pytest.mark.parametrize(
    ("section", "kind", "expected"),
    [
        (Adam(lr=0.2, beta1=0.8, beta2=0.9), torch.optim.Adam, {"lr": 0.2, "betas": (0.8, 0.9)}),
        (AdamW(lr=0.2), torch.optim.AdamW, {"lr": 0.2, "betas": (0.9, 0.999)}),
        (Sgd(lr=0.2, momentum=0.5), torch.optim.SGD, {"lr": 0.2, "momentum": 0.5, "nesterov": True}),
    ],
    ids=["adam", "adamw", "sgd"],
)
def test_options_reach_the_optimizer(section, kind, expected):
    optimizer = build_optimizer(Small(), section.model_dump(), torch.device("cpu"))
    assert isinstance(optimizer, kind)
    assert {key: optimizer.param_groups[0][key] for key in expected} == expected


def test_a_decayed_step_by_hand():
    module = nn.Linear(1, 1)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    optimizer = build_optimizer(module, Sgd(lr=0.5, weight_decay=0.1, momentum=0, nesterov=False).model_dump(), torch.device("cpu"))
    module(torch.zeros(1, 1)).sum().backward()  # gradient: weight 0, bias 1
    optimizer.step()
    assert (module.weight.item(), module.bias.item()) == (pytest.approx(1 - 0.5 * 0.1), 0.5)
