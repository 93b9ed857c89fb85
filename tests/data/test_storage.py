import numpy as np
import pytest

from snaketune.data.storage import Packs, write_packs
from snaketune.data.template import Encoded
from snaketune.errors import UserError

SAMPLES = [
    Encoded([5, 6, 7], [-100, -100, 7]),
    Encoded([8, 9], [8, 9]),
    Encoded([10, 11, 12, 13], [-100, 11, -100, 13]),
]


@pytest.fixture
def packs(tmp_path):
    write_packs(tmp_path / "train.arrow", SAMPLES, [[2, 0], [1]])
    return Packs(tmp_path / "train.arrow")


def test_samples_come_back_in_the_order_of_their_row(packs):
    assert len(packs) == 2
    assert packs[0].input_ids.tolist() == [10, 11, 12, 13, 5, 6, 7]
    assert packs[0].labels.tolist() == [-100, 11, -100, 13, -100, -100, 7]
    assert packs[0].lengths.tolist() == [4, 3]


def test_the_first_token_of_a_sample_is_never_learned(packs):
    assert packs[1].labels.tolist() == [-100, 9]


def test_arrays_are_int32(packs):
    columns = (packs[0].input_ids, packs[0].labels, packs[0].lengths)
    assert {column.dtype for column in columns} == {np.dtype("int32")}


def test_supervised_tokens_are_counted_for_each_pack(packs):
    assert packs.supervised_tokens().tolist() == [3, 1]


def test_packs_are_a_sequence(packs):
    assert [pack.lengths.tolist() for pack in packs] == [[4, 3], [2]]
    assert packs[-1].input_ids.tolist() == [8, 9]
    with pytest.raises(IndexError):
        packs[2]


def test_no_packs_is_an_empty_file(tmp_path):
    write_packs(tmp_path / "empty.arrow", [], [])
    packs = Packs(tmp_path / "empty.arrow")
    assert (len(packs), list(packs), packs.supervised_tokens().tolist()) == (0, [], [])


@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_file_is_told_with_what_to_delete(tmp_path, packs, kept):
    path = tmp_path / "train.arrow"
    damaged = path.read_bytes()[:kept]
    path.unlink()
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=f"cannot read the processed data {path}"):
        Packs(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match="Fix: delete the folder"):
        Packs(tmp_path / "none.arrow")
