"""A dry run imports the experiment and the data code; neither it nor a chat waits for torch."""

import json
import os
import subprocess
import sys

HEAVY = {"torch", "transformers", "mlflow", "peft", "datasets"}

PROGRAM = f"""
import json, sys
from pathlib import Path
import snaketune.chat.batch, snaketune.chat.connect, snaketune.chat.line_editor
import snaketune.data.conversation, snaketune.data.formats, snaketune.data.packing
import snaketune.data.prepare, snaketune.rows.reading, snaketune.data.data_report
import snaketune.data.storage, snaketune.data.template
from snaketune.experiment import load_studies

repository, base, output, spec = sys.argv[1:]
assert load_studies(Path(repository) / "experiments").experiments
spec = snaketune.data.data_spec.DataSpec.from_key(json.loads(spec))
snaketune.data.prepare.prepare(spec, Path(base), Path(output))
print(sorted({HEAVY!r} & set(sys.modules)))
"""


def test_planning_and_data_import_nothing_heavy(repository, bases, source, tmp_path):
    rows = [{"instruction": f"{n}?", "output": "Yes."} for n in range(9)]
    spec = {"template": "auto", "loss_on": "assistant", "truncation": "right", "pack": True}
    spec |= {"max_length": 64, "deduplicate": False, "heldout": 0.2}
    arguments = [
        repository,
        bases["chatml"],
        tmp_path,
        json.dumps(spec | {"sources": [source(rows)]}),
    ]
    environment = os.environ | {"PYTHONPATH": str(repository / "scripts")}
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert (tmp_path / "data.json").exists()
