import pickle

import pytest
import torch

from pcam_ssl.training.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((1000,), float(step)), "best": {"score": 0.5}}


@pytest.fixture
def two(tmp_path):
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    return tmp_path


def flip_byte(path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def test_the_newest_state_is_loaded(two):
    back = load_checkpoint(two)
    assert (back["step"], back["best"]) == (2, {"score": 0.5})
    assert torch.equal(back["weights"], state(2)["weights"])


def test_only_the_previous_checkpoint_is_kept(two):
    save_checkpoint(two, state(3))
    assert sorted(path.name for path in two.iterdir()) == ["last.pt", "previous.pt"]
    (two / "last.pt").unlink()
    assert load_checkpoint(two)["step"] == 2


@pytest.mark.parametrize("other", [{}, [1], {"step": "two"}])
def test_a_checkpoint_of_something_else_gives_a_warning_and_the_previous_is_loaded(two, capsys, other):
    torch.save(other, two / "last.pt")
    assert load_checkpoint(two)["step"] == 1
    assert "last.pt: damaged (it holds something else); going on from the checkpoint before it" in capsys.readouterr().err


def test_no_checkpoint_is_none(tmp_path):
    assert load_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: path.write_bytes(b""),
        lambda path: flip_byte(path, 0.5),
        lambda path: path.write_bytes(b"\0" * 5000),
    ],
    ids=["truncated", "empty", "one bit flipped", "zeros"],
)
def test_a_damaged_checkpoint_gives_a_warning_and_the_previous_is_loaded(two, capsys, damage):
    damage(two / "last.pt")
    assert load_checkpoint(two)["step"] == 1
    assert "last.pt: damaged (" in capsys.readouterr().err


def test_with_both_damaged_training_starts_again(two, capsys):
    for name in ("last.pt", "previous.pt"):
        (two / name).write_bytes(b"x")
    assert load_checkpoint(two) is None
    assert "training starts again" in capsys.readouterr().err


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"step": 1, "evil": Payload()}, tmp_path / "last.pt", pickle_module=pickle)
    assert load_checkpoint(tmp_path) is None
    assert not (tmp_path / "ran").exists()
    assert "last.pt: damaged" in capsys.readouterr().err


def test_a_failed_write_keeps_the_previous_checkpoint(two, monkeypatch):
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint(two, state(3))
    assert load_checkpoint(two)["step"] == 2


def test_remove_deletes_all_checkpoints(two):
    (two / "model.safetensors").touch()
    remove_checkpoints(two)
    assert [path.name for path in two.iterdir()] == ["model.safetensors"]
