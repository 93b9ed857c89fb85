"""The safetensors we write, read with the library's own reader."""

import torch
from safetensors.torch import load_file

from snaketune.models.weights import Stored, write_weights


def test_tensors_of_odd_sizes_and_several_dtypes_come_back(tmp_path):
    dtypes = [torch.uint8, torch.bfloat16, torch.float32, torch.bool, torch.float16, torch.int64]
    tensors = {
        str(dtype): torch.randint(0, 2, (3 + index,)).to(dtype)
        for index, dtype in enumerate(dtypes)
    }
    tensors["scalar"] = torch.tensor(0.5)
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    write_weights(tmp_path, shapes, lambda name: [tensors[name]], "1GB")
    for found in (load_file(tmp_path / "model.safetensors"), Stored(tmp_path)):
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
