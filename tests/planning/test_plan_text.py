"""A plan as it is printed."""

import pytest

from snaketune.planning import plan_text
from snaketune.planning.cost import Cost
from snaketune.planning.plan import Line, Plan
from snaketune.planning.plan_text import duration, in_all, lines, size

GIB = 2**30


def line(stage, owner="x", reasons=(), note="", **cost):
    return Line(stage, stage, owner, ["made"], reasons, Cost(**cost), note)


def plan(*stages, targets=("experiments/x/merged",), experiments=("x",), reused=(), free=9 * GIB):
    return Plan(targets, experiments, stages, reused, free)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(plan_text, "gpus", lambda: 0)
    monkeypatch.setattr(
        plan_text.psutil, "virtual_memory", lambda: type("", (), {"total": 16 * GIB})
    )


def test_a_stage_is_a_line_with_its_reason_and_cost_in_columns():
    train = line(
        "train",
        reasons=["train.lr 1 -> 2", "method.r 16 -> 32"],
        note="goes on from iteration 8 of 24",
        seconds=65.0,
        basis="y: 50 s for 40 iterations",
        memory=3 * GIB // 2,
        disk=2**20,
    )
    told = list(lines(plan(train, line("merge", basis="never run here"), reused=[("x", "data")])))
    why = "because train.lr 1 -> 2; method.r 16 -> 32; goes on from iteration 8 of 24"
    assert [each.plain for each in told] == [
        "experiments/x/merged",
        "  reuse  data",
        f"  train  {why}  about 1 min 5 s (y: 50 s for 40 iterations), memory about 1.5 GiB",
        f"  merge  {'for the first time':60}  time unknown (never run here)",
        "  in all about 1 min 5 s, and merge; memory about 1.5 GiB of 16.0 GiB; "
        "disk about 1 MiB, 9.0 GiB are free",
    ]


def test_what_experiments_share_stands_apart_and_targets_are_cut():
    stages = line("fetch base", None), line("train", "x"), line("train", "y")
    targets = [f"experiments/{name}/merged" for name in "abcdef"]
    told = [each.plain for each in lines(plan(*stages, targets=targets, experiments=("x", "y")))]
    assert told[0].endswith("experiments/d/merged and 2 more")
    assert told[1:7:2] == ["  shared", "  x", "  y"]


def test_too_little_disk_is_told_in_red():
    *_, last = lines(plan(line("train", disk=2 * GIB, seconds=1.0), free=GIB))
    assert last.plain.endswith("disk about 2.0 GiB, 1.0 GiB are free, which is too little")
    assert last.style == "red"


def test_nothing_to_do():
    assert in_all(plan()) == "Nothing to do: all is there."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 MiB"), (1023 * 2**20, "1023 MiB"), (GIB, "1.0 GiB")]
)
def test_sizes(count, text):
    assert size(count) == text
