import json
from hashlib import sha256
from importlib import import_module

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from pcam_ssl.data.synthetic import write_synthetic
from pcam_ssl.device import Precision
from pcam_ssl.models.weights import WeightPackage

# The package's own `doctor` is the function.
doctor = import_module("pcam_ssl.doctor")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay a distribution's .dist-info into a folder that is first on sys.path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name, version, module):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "RECORD").write_text(f"{module}/__init__.py,,\n{folder.name}/METADATA,,\n")

    return put


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("doctor") / "slides"
    write_synthetic(path, slides=2, test_slides=1, patches=4, size_px=32)
    return path


def test_this_environment_is_fit():
    findings = doctor.examine()
    assert [finding.line() for finding in findings if finding.state == "fail"] == []
    assert [finding.topic for finding in findings][:3] == ["python", "torch", "torchvision"]


def test_a_line_has_state_topic_text_and_fix():
    assert doctor.Finding("disk", "warn", "1 GB free", "use a larger disk").line() == "warn  disk: 1 GB free; use a larger disk"
    assert doctor.Finding("timm", "ok", "1.0").line() == "ok    timm: 1.0"


def test_the_last_mit_albumentations_is_fit():
    finding = doctor.check_albumentations()
    assert finding.state == "ok" and finding.text.startswith("2.0.") and finding.text.endswith("(MIT)")


def test_the_agpl_successor_under_the_same_import_name_fails(install):
    install("albumentationsx", "2.1.0", "albumentations")
    finding = doctor.check_albumentations()
    assert finding.state == "fail"
    assert finding.text == "albumentationsx (AGPL) provides the import name albumentations"
    assert "pip uninstall -y albumentations albumentationsx" in finding.mend
    assert "albumentations>=2.0.8,<2.1" in finding.mend


def test_an_older_albumentations_fails(install):
    install("albumentations", "1.4.0", "albumentations")
    finding = doctor.check_albumentations()
    assert (finding.state, finding.text) == ("fail", "1.4.0 is not tested")


def test_two_faiss_distributions_fail(install):
    install("faiss-cpu", "1.12.0", "faiss")
    install("faiss-gpu", "1.12.0", "faiss")
    finding = doctor.check_faiss()
    assert (finding.state, finding.text) == ("fail", "faiss-cpu and faiss-gpu overwrite each other")
    assert finding.mend == "run `pip uninstall -y faiss-cpu faiss-gpu`, then install one of them"


def test_faiss_names_its_build():
    finding = doctor.check_faiss()
    assert finding.state == "ok" and ("GPU build" in finding.text or "CPU build" in finding.text)


def test_owners_of_an_import_name_are_exact(install):
    install("one", "1", "pcam_fake_module")
    install("other", "1", "pcam_fake_module_longer")
    assert doctor.distributions_of("pcam_fake_module") == ["one"]


def test_a_package_that_breaks_on_import_is_a_finding(tmp_path, monkeypatch):
    (tmp_path / "pcam_broken_module.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = doctor._guarded("torchvision", lambda: doctor.check_version("pcam_broken_module"))
    assert (finding.state, finding.text) == ("fail", "operator torchvision::nms does not exist")
    assert finding.mend


def test_an_absent_package_is_a_finding():
    finding = doctor._guarded("timm", lambda: doctor.check_version("pcam_absent_module"))
    assert (finding.state, finding.text) == ("fail", "No module named 'pcam_absent_module'")


def test_torchvision_runs_an_operator():
    assert doctor.check_torchvision().state == "ok"


def test_precision_has_a_reason():
    finding = doctor.check_precision()
    assert finding.text.startswith(("bf16", "fp16", "fp32")) and ": " in finding.text


@pytest.mark.parametrize(("bf16", "state"), [(100.0, "ok"), (60.0, "ok"), (30.0, "warn")])
def test_speed_warns_where_another_format_is_clearly_faster(bf16, state, monkeypatch):
    monkeypatch.setattr("pcam_ssl.device.choose_precision", lambda device: Precision("bf16", True, "a test"))
    monkeypatch.setattr(
        doctor,
        "training_rates",
        lambda device, precisions: {each.name: {"bf16": bf16, "fp32": 50.0}[each.name] for each in precisions},
    )
    finding = doctor.check_speed()
    assert finding.state == state
    assert finding.text.startswith(f"training resnet18 at 96 px, patches/s: bf16 {bf16:.0f}, fp32 50")
    assert ("train.precision=fp32" in finding.mend) == (state == "warn")


def test_speed_is_measured():
    cpu = torch.device("cpu")
    rates = doctor.training_rates(cpu, [Precision("fp32", True, "a test"), Precision("bf16", False, "a test")])
    assert list(rates) == ["fp32", "bf16"] and all(rate > 0 for rate in rates.values())


def test_disk_space_is_measured(tmp_path):
    finding = doctor.check_disk(tmp_path)
    assert "GB free in" in finding.text and (finding.state == "ok") == (float(finding.text.split()[0]) >= doctor.PACKED_KAGGLE_GB)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """package(content): a package of weights whose file holds `content`; its known content is b"weights"."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "pcam_fake_weights" / "weights.pth"

    def put(content: bytes):
        file.parent.mkdir()
        file.write_bytes(content)
        monkeypatch.syspath_prepend(str(tmp_path))
        known = WeightPackage("tiny", "pcam-fake-weights", "weights.pth", sha256(b"weights").hexdigest())
        monkeypatch.setattr(doctor, "PACKAGES", {"tiny": known})
        return [finding for finding in doctor.examine() if finding.topic == "weights"]

    return put


def test_an_installed_package_of_weights_is_listed(package):
    cache, known = package(b"weights")
    assert (cache.state, cache.mend) == ("ok", "") and cache.text.startswith("0 models of the hub cached in ")
    assert (known.state, known.text) == ("ok", "pcam-fake-weights of unknown version has tiny (Apache-2.0), digest ok")


def test_changed_weights_of_a_package_fail(package):
    _, changed = package(b"other weights")
    assert changed.state == "fail" and "SHA-256 of " in changed.text
    assert changed.mend == "run `pip install --force-reinstall --no-deps pcam-fake-weights==0.1.0`"


def test_without_any_weights_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "PACKAGES", {})
    finding = doctor.check_hub_cache()
    assert finding.state == "ok" and finding.mend.startswith("`pip install 'pcam-ssl[weights]'`")


def test_dataset_shows_counts_and_digest(dataset):
    finding = doctor.check_dataset(dataset, verify=True)
    assert finding.state == "ok"
    assert "12 patches of 32 px (train 8, test 4), 3 slides, digest" in finding.text and finding.text.endswith("verified")


def test_the_dataset_of_the_environment_variable_is_looked_at(dataset, monkeypatch):
    monkeypatch.setenv("PCAM_SSL_DATA", str(dataset))
    assert doctor.check_dataset(None, verify=False).text.startswith(f"{dataset}: 12 patches")


def test_no_dataset_is_a_warning_with_the_command_that_makes_one(tmp_path, monkeypatch):
    monkeypatch.delenv("PCAM_SSL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert doctor.check_dataset(None, verify=False).line() == (
        "warn  dataset: none at data/pcam; make one with `pcam-ssl data import SOURCE data/pcam`"
    )


def test_a_changed_pixel_is_found_by_verify_alone(tmp_path):
    write_synthetic(tmp_path / "slides", slides=1, test_slides=0, patches=3, size_px=32)
    pixels = np.load(tmp_path / "slides" / "pixels.npy", mmap_mode="r+")
    pixels[1, 5, 5, 0] ^= 1
    pixels.flush()
    assert doctor.check_dataset(tmp_path / "slides", verify=False).state == "ok"
    finding = doctor.check_dataset(tmp_path / "slides", verify=True)
    assert finding.state == "fail" and finding.mend == "delete the folder and import it again"


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(doctor, "check_speed", lambda: doctor.Finding("speed", "ok", "not measured"))
    from pcam_ssl.cli.recipes import doctor as verb

    app = typer.Typer()
    app.command()(verb)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_exits_with_2_where_something_must_be_fixed(run, tmp_path):
    result = run("--data", tmp_path / "absent")
    assert result.exit_code == 2
    assert f"fail  dataset: {tmp_path / 'absent'}: no such dataset" in result.stdout


def test_the_command_prints_json(run, dataset):
    result = run("--data", dataset, "--json")
    assert result.exit_code == 0
    assert {"topic", "state", "text", "mend"} == set(json.loads(result.stdout)[0])


def test_foundation_models_in_the_cache_are_told_from_others(monkeypatch, tmp_path):
    snapshot = tmp_path / "models--kaiko-ai--midnight" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "models--kaiko-ai--midnight" / "refs").mkdir()
    (tmp_path / "models--kaiko-ai--midnight" / "refs" / "main").write_text("abc")
    (tmp_path / "models--owkin--phikon-v2").mkdir()  # begun, without weights
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text = doctor.check_foundation_models().text
    cached, absent = text.split("; not cached: ")
    assert cached == "cached: midnight"
    assert "virchow2 (2.5 GB, gated, CC-BY-NC-ND-4.0)" in absent and "phikon-v2 (1.2 GB, not gated" in absent
