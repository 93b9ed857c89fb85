"""The chunked loss against torch's own cross entropy."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from snaketune.models.loss import CHUNK, chunked_cross_entropy

ROWS, HIDDEN, VOCABULARY = 2 * CHUNK + 7, 16, 50


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    hidden = torch.randn(ROWS, HIDDEN, dtype=torch.float64).float()
    head = torch.randn(VOCABULARY, HIDDEN)
    return hidden, head, torch.randint(VOCABULARY, (ROWS,)), torch.rand(ROWS)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("trained", [(True, False), (False, True), (True, True)])
def test_value_and_gradients_equal_those_of_torch(tensors, weighted, trained):
    hidden, head, targets, weights = tensors
    found, expected = (
        [t.clone().requires_grad_(free) for t, free in zip((hidden, head), trained, strict=True)]
        for _ in "ab"
    )
    weights = weights if weighted else None
    loss = chunked_cross_entropy(*found, targets, weights)
    each = cross_entropy(expected[0] @ expected[1].T, targets, reduction="none")
    same = (each if weights is None else each * weights).sum()
    torch.testing.assert_close(loss, same)
    (3 * loss).backward()
    (3 * same).backward()
    for one, other in zip(found, expected, strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-5)


def test_without_gradients_the_value_is_the_same(tensors):
    hidden, head, targets, _ = tensors
    loss = chunked_cross_entropy(hidden, head, targets)
    torch.testing.assert_close(loss, cross_entropy(hidden @ head.T, targets, reduction="sum"))


def test_a_batch_without_labels_has_no_loss(tensors):
    hidden, head, targets, _ = tensors
    hidden.requires_grad_()
    loss = chunked_cross_entropy(hidden[:0], head, targets[:0])
    loss.backward()
    assert loss.item() == 0
    assert not hidden.grad.any()


def test_bf16_is_as_near_to_fp32_as_torch_is(tensors):
    hidden, head, targets, _ = tensors
    exact = cross_entropy(hidden @ head.T, targets, reduction="sum")
    low = hidden.bfloat16(), head.bfloat16()
    torchs = cross_entropy((low[0] @ low[1].T).float(), targets, reduction="sum")
    ours = chunked_cross_entropy(*low, targets)
    assert abs(ours - exact) <= 1.1 * abs(torchs - exact)
