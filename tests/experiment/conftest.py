"""An experiments folder written by the test itself, with one model and one data set to name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from snaketune.experiment import Studies, load_studies

CATALOG = {
    "catalog/models.yaml": "tiny:\n  source: ./tiny\n",
    "catalog/datasets.yaml": "rows:\n  path: data/rows.jsonl\n  format: alpaca\n",
}


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str | dict[str, str | bytes]], Studies]:
    """Write the files (a text alone is `a.yaml`) beside the catalogs, and load the folder."""

    def load(files: str | dict[str, str | bytes]) -> Studies:
        named = {"a.yaml": files} if isinstance(files, str) else files
        for name, content in (CATALOG | named).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / name).write_bytes(data)
        return load_studies(tmp_path)

    return load
