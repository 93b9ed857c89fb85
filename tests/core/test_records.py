"""Records: written whole, read back, upgraded, or refused with the command that rebuilds them."""

import json

import pytest

from snaketune.core.errors import UserError
from snaketune.core.records import Record


class Figures(Record):
    """A record in its second shape."""

    VERSION = 2

    seconds: float
    device: str = "cpu"

    @classmethod
    def upgrade(cls, values, version):
        return {"seconds": values["minutes"] * 60} if "minutes" in values else None


def written(folder, values):
    path = folder / "figures.json"
    path.write_text(json.dumps(values))
    return path


def test_what_is_written_is_read_back(tmp_path):
    Figures(seconds=1.5).write(tmp_path / "figures.json")

    assert json.loads((tmp_path / "figures.json").read_text())["record_version"] == 2
    assert Figures.read(tmp_path / "figures.json") == Figures(seconds=1.5)


def test_a_file_without_a_version_is_the_first_shape(tmp_path):
    assert Figures.read(written(tmp_path, {"minutes": 2})).seconds == 120


def test_unknown_keys_are_left_alone(tmp_path):
    path = written(tmp_path, {"record_version": 2, "seconds": 1, "colour": "red"})

    assert Figures.read(path).seconds == 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"record_version": 3, "seconds": 1}, "newer SnakeTune"),
        ({"record_version": 1, "hours": 1}, "record version 1, expected 2"),
        ({"record_version": "two"}, "record version two, expected 2"),
        ({"record_version": 2}, "seconds: Field required"),
        ({"record_version": 2, "seconds": "long"}, "seconds: Input should be a valid number"),
        ([1, 2], "expected a JSON object"),
    ],
)
def test_other_shapes_are_refused_with_a_fix(tmp_path, values, reason):
    with pytest.raises(UserError, match=reason) as caught:
        Figures.read(written(tmp_path, values))

    assert "Fix: " in str(caught.value)


def test_the_fix_names_the_command_that_rebuilds(tmp_path):
    path = written(tmp_path, {"record_version": 2})

    with pytest.raises(UserError, match="snakemake experiments/x/merged"):
        Figures.read(path, rebuild="snakemake experiments/x/merged")
