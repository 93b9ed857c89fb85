"""Reasons in words, from what Snakemake remembers of parameters and files."""

import json

import pytest

from snaketune.planning.job import Job
from snaketune.planning.reasons import reasons


def job(rule="merge", **told):
    return Job(rule, {"experiment": "x"}, ["experiments/x/merged"], made_before=True, **told)


def canonical(**values):
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def test_a_stage_that_never_ran_has_no_reason():
    new = Job("merge", {}, ["experiments/x/merged"], missing=["experiments/x/merged"])
    assert reasons(new) == []


CASES = {
    "a key of the parameter": (
        job(
            before=[canonical(dtype="auto", version=2)],
            now={"export": canonical(dtype="fp16", version=2)},
        ),
        ["export.dtype auto -> fp16"],
    ),
    "a version": (
        job("export_adapter", before=[1], now={"version": 2}),
        ["this SnakeTune makes it in another way (1 -> 2)"],
    ),
    "a version in the parameter": (
        job(before=[canonical(version=2)], now={"export": canonical(version=3)}),
        ["this SnakeTune makes it in another way (2 -> 3)"],
    ),
    "a plain parameter, beside a folder": (
        job("export_gguf", before=["f16", "store/models/a"], now={"dtype": "bf16", "base": "b/c"}),
        ["export.gguf f16 -> bf16"],
    ),
    "the parameter most like it": (
        job(
            "evaluate",
            before=[canonical(other=1), canonical(evaluate={"max_new_tokens": 4}, version=1)],
            now={"evaluate": canonical(evaluate={"max_new_tokens": 5}, version=1)},
        ),
        ["evaluate.max_new_tokens 4 -> 5"],
    ),
    "a prompt is told once": (
        job(
            "evaluate",
            before=[canonical(evaluate={"prompts": ["a"]}, prompts=["a"])],
            now={"evaluate": canonical(evaluate={"prompts": ["b"]}, prompts=["b"])},
        ),
        ["evaluate.prompts a -> b"],
    ),
    "a digest is no reason, the stage before is": (
        job(
            "train",
            before=[canonical(data="0123", train={})],
            now={"train": canonical(data="4567", train={})},
            after=["fetch_base", "prepare_data"],
        ),
        ["of fetch base and prepare data"],
    ),
    "files": (job(touched=["a/1", "a/2", "a/3"]), ["a/1, a/2 and 1 more changed"]),
    "missing before touched": (
        job(missing=["a/1"], touched=["b"], after=["train"]),
        ["a/1 is missing", "b changed"],
    ),
    "not finished": (job(interrupted=True, missing=["a/1"]), ["it was not finished"]),
    "the environment": (job(environment=True), ["its software environment changed"]),
    "other input": (job(added=["a"], removed=["b"]), ["it now reads a"]),
    "less input": (job(removed=["b"]), ["it no longer reads b"]),
    "a rule without output": (job("list", always=True), ["it runs each time"]),
    "a time as parameter": (job("verify", before=[1], now={"now": 2}), ["it runs each time"]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_reason_is_told(case):
    given, expected = CASES[case]
    assert reasons(given) == expected


def test_known_settings_win_over_parameters():
    given = job("train", before=[canonical(lr=1)], now={"train": canonical(lr=2)})
    assert reasons(given, {"train.lr": (1e-4, 2e-4)}) == ["train.lr 0.0001 -> 0.0002"]


def test_a_long_value_is_cut():
    [told] = reasons(job(), {"evaluate.prompts": (["a" * 99], None)})
    assert told == f"evaluate.prompts {'a' * 57}... -> not set"
