"""train.json and the rows beside it: read as written, also by an earlier release."""

import json
import subprocess
import sys

import pytest

from snaketune.core.records import VERSION_KEY
from snaketune.training.train_record import MetricsRow, PeakMemory, TrainRecord

OLD = {"train_id": "cafe", "base_sha256": "b", "data_sha256": "d", "iterations": 12}
OLD |= {"peak_rss_bytes": 100, "heldout_losses": {"4": 2.5}, "result_iteration": 4}


def test_file_of_an_earlier_release(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(OLD))
    record = TrainRecord.read(tmp_path / "train.json")
    assert record.heldout_losses == {4: 2.5}
    assert (record.identity.data_sha256, record.exported_iteration) == ("d", 4)
    record.write(tmp_path / "train.json")
    assert json.loads((tmp_path / "train.json").read_text()) == OLD | {VERSION_KEY: 1}


def test_records_import_no_torch(repository):
    code = (
        "import sys, snaketune.training.train_record, snaketune.models.checkpoint_about;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=repository / "scripts", check=True)


@pytest.mark.parametrize(("allocated", "limit", "on_gpu"), [(None, 5, False), (3, 3, True)])
def test_memory_that_limits(allocated, limit, on_gpu):
    memory = PeakMemory(peak_rss_bytes=5, peak_allocated_bytes=allocated)
    assert (memory.peak_memory_bytes, memory.on_gpu) == (limit, on_gpu)


def test_row_of_a_cpu_has_no_gpu_memory(run):
    done = run(max_steps=1, accumulate=2).train()
    row = done.metrics()[0]
    assert row["update"] is None and row["peak_rss_bytes"] > 0
    assert not {"peak_allocated_bytes", "peak_reserved_bytes"} & row.keys()
    assert MetricsRow.read(done.output / "metrics.jsonl")[0].model_dump() == row
