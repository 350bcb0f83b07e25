import pytest
import torch

from pcam_ssl.device import choose_precision
from pcam_ssl.errors import UserError

CPU = torch.device("cpu")


def test_the_named_precision_is_used():
    chosen = choose_precision(CPU, "fp32", False)
    assert (chosen.name, chosen.channels_last, chosen.why) == ("fp32", False, "asked for")


@pytest.mark.parametrize(("avx512", "amx", "name"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")])
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(monkeypatch, avx512, amx, name):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert choose_precision(CPU).name == name


@pytest.mark.parametrize(("capability", "name"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16")])
def test_a_gpu_without_bf16_units_computes_in_fp16(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(torch.device("cuda")).name == name


def test_channels_last_is_chosen_on_cpu_and_gpu_only():
    assert [choose_precision(torch.device(kind), "fp32").channels_last for kind in ("cpu", "cuda", "mps")] == [True, True, False]


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(UserError, match=r"train.precision: fp16 needs a CUDA device, this is cpu; use bf16, fp32 or auto"):
        choose_precision(CPU, "fp16")


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_network_runs_in_the_format(name, dtype):
    with choose_precision(CPU, name).autocast(CPU):
        assert torch.nn.functional.linear(torch.ones(1, 2), torch.ones(2, 2)).dtype == dtype
