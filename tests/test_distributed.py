import pytest
import torch
from torch import nn

from pcam_ssl.distributed import World, choose_device, join_world
from pcam_ssl.errors import UserError

ALONE = World(0, 1, torch.device("cpu"))


def test_with_one_process_every_method_is_the_identity():
    value, module = torch.tensor([1.0, 2.0]), nn.Linear(1, 1)
    assert ALONE.is_main
    assert ALONE.mean(value) is value
    assert ALONE.wrap(module) is module
    assert ALONE.gather("x") == ["x"]
    assert ALONE.run_on_main(lambda: 7) == 7
    assert ALONE.share(7, "batch") == 7


def test_without_torchrun_the_world_is_one_process(monkeypatch):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert join_world("cpu") == ALONE


@pytest.mark.parametrize("rank", [0, 3])
def test_a_total_that_does_not_divide_is_reported_once(rank):
    with pytest.raises(UserError) as caught:
        World(rank, 4, torch.device("cpu")).share(6, "train.batch_size")
    assert str(caught.value).startswith("train.batch_size is 6, ")
    assert str(caught.value).endswith("; make it a multiple of 4")
    assert caught.value.told == (rank > 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_an_absent_device_is_one_line():
    with pytest.raises(UserError, match=r"train.device: cuda is not available here; set train.device=auto"):
        choose_device("cuda")
