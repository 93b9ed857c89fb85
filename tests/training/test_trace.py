"""The losses of a run on the tiny model, pinned: a change of the loop's numbers shows here.

`python tests/training/test_trace.py` writes trace.json anew; say in the commit why it changed.
"""

import json
import platform
import sys
import tempfile
from pathlib import Path

import pytest
import torch

TRACE = Path(__file__).with_name("trace.json")
SETTINGS = {"lr": 1e-2, "batch_size": 2, "method": {"dropout": 0.1}}


def environment() -> dict[str, str]:
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().partition("flags")[2].partition("\n")[0] if cpuinfo.exists() else ""
    widest = max((flag for flag in flags.split() if flag.startswith("avx")), default="")
    return {"torch": torch.__version__, "machine": platform.machine(), "vectors": widest}


def trace(run) -> list[float]:
    return [row["loss"] for row in run.metrics()]


@pytest.mark.parametrize("packed", [False, True])
def test_losses_are_those_that_were_stored(run, make_data, packed):
    stored = json.loads(TRACE.read_text())
    found = trace(run(data=make_data(pack=packed), **SETTINGS).train())
    expected = stored["packed" if packed else "unpacked"]
    assert found == pytest.approx(expected, abs=1e-3)
    if stored["environment"] == environment():
        assert found == pytest.approx(expected, abs=1e-6)


def write() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tiny_model import write_base
    from tiny_run import Run, write_data

    traces = {}
    with tempfile.TemporaryDirectory() as folder:
        base = write_base(Path(folder) / "tiny")
        for name in ("unpacked", "packed"):
            data = write_data(Path(folder) / f"{name}_data", base, pack=name == "packed")
            traces[name] = trace(Run(Path(folder) / name, base, data, **SETTINGS).train())
    TRACE.write_text(json.dumps({"environment": environment(), **traces}, indent=1) + "\n")


if __name__ == "__main__":
    write()
