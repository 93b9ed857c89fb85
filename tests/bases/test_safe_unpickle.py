"""Another program's checkpoint is read without importing or running anything it names."""

import builtins
import os
import subprocess
import sys
import zipfile

import pytest
import torch

from snaketune.bases.safe_unpickle import Inert, load_inert
from snaketune.core.errors import UserError
from snaketune.core.files import LFS_POINTER
from xtuner_run import write_pth


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_weights_come_back_and_what_is_beside_them_is_inert(tmp_path):
    weights = {"llm.a": torch.randn(3, 2), "llm.b": torch.randn(4).half()}
    write_pth(tmp_path / "iter_500.pth", weights)
    state = load_inert(tmp_path / "iter_500.pth")
    assert all(torch.equal(tensor, state["state_dict"][name]) for name, tensor in weights.items())
    assert state["meta"]["iter"] == 500
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], torch.ones(3))
    buffer = state["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(buffer, Inert)
    assert vars(buffer) == {}
    assert "mmengine" not in sys.modules
    with pytest.raises(Exception, match="not an allowed global"):  # torch alone would refuse it
        torch.load(tmp_path / "iter_500.pth", weights_only=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda fuse: Call(subprocess.check_call, ["touch", fuse]),
        lambda fuse: Call(builtins.exec, f"open({fuse!r}, 'w')"),
        lambda fuse: Call(open, fuse, "w"),
        lambda fuse: Call(os.system, f"touch {fuse}"),
    ],
    ids=["subprocess", "exec", "open", "os"],
)
def test_code_in_a_checkpoint_is_not_run(tmp_path, make):
    path, fuse = tmp_path / "a.pth", tmp_path / "burnt"
    torch.save({"state_dict": {}, "message_hub": make(str(fuse))}, path)
    torch.load(path, weights_only=False)
    assert fuse.exists()  # it would run
    fuse.unlink()
    try:
        assert isinstance(load_inert(path)["message_hub"], Inert)
    except UserError as error:  # torch reads no name of the module os, whoever allows it
        assert "nothing was run" in str(error)
    assert not fuse.exists()


def test_names_are_allowed_for_one_file_alone(tmp_path):
    torch.save({"a": Call(builtins.print, "!")}, tmp_path / "a.pth")
    before = torch.serialization.get_safe_globals()
    load_inert(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == set(before)


class Mapping(dict):
    """What torch's reader does not fill, even if it is allowed."""


def not_zip(path):
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)


def truncated(path):
    torch.save({"a": torch.ones(300)}, path)
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path):
    torch.save({"a": torch.ones(300)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(8).numpy().tobytes())] ^= 1
    path.write_bytes(content)


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")


WRONG = {
    "empty": (lambda path: path.write_bytes(b""), "cannot be read: File is not a zip file"),
    "truncated": (truncated, "cannot be read: File is not a zip file"),
    "flipped": (flipped, r"its record .* is corrupt"),
    "before torch 1.6": (not_zip, "cannot be read: File is not a zip file"),
    "another zip": (other_zip, "without running code"),
    "own mapping": (lambda path: torch.save({"a": Mapping(b=1)}, path), "without running code"),
    "a tensor": (lambda path: torch.save(torch.ones(3), path), "holds one Tensor, expected a"),
    "pointer": (lambda path: path.write_bytes(LFS_POINTER + b".com/spec/v1\n"), "git lfs pull"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, kind):
    write, message = WRONG[kind]
    write(tmp_path / "a.pth")
    with pytest.raises(UserError, match=message) as caught:
        load_inert(tmp_path / "a.pth")
    assert "a.pth" in str(caught.value)
    assert "Fix:" in str(caught.value)
