import numpy as np
import pytest

from snaketune.core.errors import UserError
from snaketune.data.storage import ArrowColumns, Packs, PackTable, write_packs, writing_samples
from snaketune.data.template import EncodedSample

SAMPLES = [
    ([5, 6, 7], [-100, -100, 7]),
    ([8, 9], [8, 9]),
    ([10, 11, 12, 13], [-100, 11, -100, 13]),
]


def write_samples(folder, *chunks):
    with writing_samples(folder / "samples.arrow") as writer:
        for chunk in chunks:
            samples = [EncodedSample(*(np.array(part, np.int32) for part in one)) for one in chunk]
            writer.write(ArrowColumns.of(samples, [f"rows:{n}" for n in range(len(samples))]))
    return writer


@pytest.fixture
def packs(tmp_path):
    write_samples(tmp_path, SAMPLES[:1], [], SAMPLES[1:])
    whole = [[(2, 0, 4), (0, 0, 3)], [(1, 0, 2)]]
    write_packs(tmp_path / "train.arrow", PackTable.of(whole), np.array([2, 1, 1]))
    return Packs(tmp_path / "train.arrow")


def test_samples_are_counted_as_they_are_written(tmp_path):
    writer = write_samples(tmp_path, SAMPLES)
    assert writer.sizes().lengths.tolist() == [3, 2, 4]
    assert writer.sizes().supervised.tolist() == [1, 1, 2]


def test_first_token_of_a_piece_is_not_learned(tmp_path):
    write_samples(tmp_path, SAMPLES)
    pieces = PackTable.of([[(2, 1, 4), (0, 0, 2)]])
    write_packs(tmp_path / "train.arrow", pieces, np.array([1, 0]))
    [pack] = Packs(tmp_path / "train.arrow")
    assert pack.input_ids.tolist() == [11, 12, 13, 5, 6]
    assert pack.labels.tolist() == [-100, -100, 13, -100, -100]
    assert pack.lengths.tolist() == [3, 2]


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


def test_loss_weights_are_summed_for_each_pack(packs):
    assert packs.loss_weights().tolist() == [3, 1]


def test_packs_are_a_sequence(packs):
    assert [pack.lengths.tolist() for pack in packs] == [[4, 3], [2]]
    assert packs[-1].input_ids.tolist() == [8, 9]
    with pytest.raises(IndexError):
        packs[2]


def test_no_packs_is_an_empty_file(tmp_path):
    write_samples(tmp_path)
    write_packs(tmp_path / "empty.arrow", PackTable.of([]), np.zeros(0))
    packs = Packs(tmp_path / "empty.arrow")
    assert (len(packs), list(packs), packs.loss_weights().tolist()) == (0, [], [])


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
