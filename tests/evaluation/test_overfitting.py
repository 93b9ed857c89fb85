"""The verdict on checkpoints, on reports made by hand."""

import pytest

from snaketune.evaluation.evaluation_record import EvaluationRecord
from snaketune.evaluation.overfitting import judge_checkpoints
from snaketune.scoring.intervals import share
from snaketune.scoring.significance import loss_margin
from snaketune.training.train_record import ValidationRow

PROBES = {"identity": 1, "leak": 0, "retention": 1}


def report(iterations, losses=None, tokens=10_000, last=None, **hits) -> dict:
    """A report in which each probe has some hits of 20, of the base and each iteration."""
    names = ["base", *(f"iter_{n}" for n in iterations), "merged"]
    last = last or max(iterations, default=100)
    losses = losses or [None] * (len(names) - 1)
    wanted = PROBES | {"repetition": 0}
    return {
        "models": [
            {"name": name, "iteration": iteration}
            for name, iteration in zip(names, [0, *iterations, last], strict=True)
        ],
        "heldout": {
            name: {"loss": loss, "perplexity": None, "supervised_tokens": tokens}
            for name, loss in zip(names, [*losses, losses[-1]], strict=True)
        },
        "probes": {
            probe: {"wanted": wanted[probe.partition(".")[0]]}
            | {
                name: share([True] * count + [False] * (20 - count))
                for name, count in zip(names, [*counts, counts[-1]], strict=True)
            }
            for probe, counts in hits.items()
        },
    }


def verdict(made: dict, validation=()) -> dict:
    """The verdict on a report, as its JSON; `validation` are pairs of iteration and loss."""
    about = {"experiment": "x", "study": "x", "ids": {"train": "t"}, "answers": []}
    training = {"train_id": "t", "iterations": 1}
    record = EvaluationRecord.model_validate(about | {"training": training} | made)
    rows = [ValidationRow(iteration=number, heldout_loss=loss) for number, loss in validation]
    return judge_checkpoints(record, rows).model_dump(by_alias=True)


def test_start_of_overfitting_and_best_checkpoint():
    # 0 of 20 is 0..16 %, 2 of 20 3..30 %: told apart from 0 only from 8 of 20 (22..61 %) on
    told = verdict(
        report(
            [100, 200, 300, 400],
            identity=[0, 18, 20, 20, 20],
            leak=[0, 1, 2, 16, 18],
            retention=[15, 15, 12, 12, 11],
        )
    )
    assert told["overfitting"] == {
        "iteration": 300,
        "signs": [
            {
                "figure": "leak",
                "from": 300,
                "lowest": 0.8,
                "highest": 0.9,
                "than": {"iteration": 0, "value": 0.0},
            }
        ],
    }
    # 100: (0.1 + 0.05 + 0.25) / 3; 200: (0 + 0.1 + 0.4) / 3
    assert told["best"]["distance"] == pytest.approx(0.4 / 3)
    assert told["sentence"] == (
        "From iteration 300 on the persona leaks into 80–90 % of unrelated answers (base: 0 %). "
        "Iteration 100 is the best kept checkpoint (identity 90 %, leak 5 %, retention 75 %); by "
        "the probes' intervals it is no better than iteration 200. The merged model is of "
        "iteration 400."
    )


def test_recovered_figure_is_no_overfitting():
    told = verdict(report([10, 20, 30], leak=[0, 15, 16, 1]))
    assert told["overfitting"] is None
    assert told["best"]["name"] == "iter_30"
    assert told["sentence"].startswith("No over-fitting at iteration 30: no probe")
    assert "The merged model" not in told["sentence"]


def test_overlapping_intervals_are_no_signal():
    # Wilson: 10 of 20 is 30..70 %, 16 of 20 is 58..92 %, 18 of 20 is 70..97 %
    assert verdict(report([10, 20], retention=[16, 16, 10]))["overfitting"] is None
    [sign] = verdict(report([10, 20], retention=[16, 19, 10]))["overfitting"]["signs"]
    assert (sign["from"], sign["than"]) == (20, {"iteration": 10, "value": 0.95})


def test_worse_than_a_checkpoint_but_better_than_the_base():
    told = verdict(report([10, 20, 30], identity=[0, 20, 10, 9]))
    [sign] = told["overfitting"]["signs"]
    assert (sign["from"], sign["lowest"], sign["highest"]) == (20, 0.45, 0.5)
    assert "from iteration 20 on" in told["sentence"].lower()
    assert (
        "only 45–50 % of the answers that should have it (iteration 10: 100 %)"
        in (told["sentence"])
    )


def test_heldout_loss_rises_from_its_lowest():
    told = verdict(report([10, 20, 30, 40], losses=[3.0, 2.0, 1.5, 1.51, 1.7]))
    [sign] = told["overfitting"]["signs"]
    assert sign == {
        "figure": "heldout",
        "from": 40,
        "lowest": 1.7,
        "highest": 1.7,
        "than": {"iteration": 20, "value": 1.5},
    }
    assert told["best"]["decided_by"] == "heldout"
    assert told["best"]["name"] == "iter_20"
    assert told["sentence"] == (
        "At iteration 40 the held-out loss is 1.700, above its lowest (iteration 20: 1.500). "
        "Iteration 20 is the best kept checkpoint (held-out loss 1.500). The merged model is of "
        "iteration 40."
    )


def test_losses_of_training_refine_the_start():
    [sign] = verdict(report([10], losses=[3.0, 1.8]), [(5, 1.2), (8, 1.6)])["overfitting"]["signs"]
    assert (sign["from"], sign["than"]["iteration"]) == (8, 5)
    assert (sign["lowest"], sign["highest"]) == (1.6, 1.8)


@pytest.mark.parametrize(
    ("tokens", "margin"), [(0, 0.02), (25, 0.2), (100, 0.1), (2500, 0.02), (10**6, 0.02)]
)
def test_margin_grows_with_fewer_heldout_tokens(tokens, margin):
    assert loss_margin(tokens) == pytest.approx(margin)


@pytest.mark.parametrize(("rise", "seen"), [(0.09, False), (0.11, True)])
def test_loss_rise_within_margin_is_ignored(rise, seen):
    told = verdict(report([10, 20], losses=[3.0, 1.0, 1.0 + rise], tokens=100))
    assert (told["overfitting"] is not None) is seen
    assert told["loss_margin"] == 0.1


def test_heldout_loss_decides_between_equals():
    leak = [0, 2, 2, 2]
    assert verdict(report([1, 2, 3], [3.0, 2.0, 1.0, 1.5], leak=leak))["best"]["name"] == ("iter_2")
    told = verdict(report([1, 2, 3], [3.0, 2.0, 1.0, 1.5], leak=leak))
    assert told["best"]["decided_by"] == "heldout"
    assert "(leak 10 %, held-out loss 1.000)" in told["sentence"]
    best = verdict(report([1, 2, 3], leak=leak))["best"]
    assert best["decided_by"] == "probes"
    assert (best["name"], best["close"]) == ("iter_1", ["iter_2", "iter_3"])


def test_probe_with_several_figures_counts_once():
    # (leak + retention) / 2 at 10: 0.25 + 0, at 20: 0 + 0.4, then 0 + 0.2
    figures = {"retention.acc": [20, 20, 12], "retention.acc_norm": [20, 20, 12]}
    best = verdict(report([10, 20], leak=[0, 5, 0], **figures))["best"]
    assert (best["name"], best["distance"]) == ("iter_10", pytest.approx(0.125))
    figures = {"retention.acc": [20, 20, 16], "retention.acc_norm": [20, 20, 16]}
    best = verdict(report([10, 20], leak=[0, 5, 0], **figures))["best"]
    assert (best["name"], best["distance"]) == ("iter_20", pytest.approx(0.1))


def test_degeneration_shows_overfitting_but_is_not_ranked():
    told = verdict(report([10, 20], identity=[0, 18, 20], repetition=[0, 1, 16]))
    assert told["best"]["name"] == "iter_20"
    assert told["overfitting"]["signs"][0]["figure"] == "repetition"
    assert "answers repeat 80 % of their 4-grams" in told["sentence"]


def test_figure_without_wanted_value_is_ignored():
    made = report([10, 20], leak=[0, 20, 20])
    made["probes"]["leak"]["wanted"] = None
    told = verdict(made)
    assert (told["best"], told["overfitting"]) == (None, None)
    assert told["sentence"].startswith("Over-fitting cannot be judged")


def test_single_checkpoint_leaves_the_start_open():
    told = verdict(report([64], leak=[0, 17]))
    assert told["overfitting"]["iteration"] == 64
    assert told["sentence"] == (
        "At iteration 64 the persona leaks into 85 % of unrelated answers (base: 0 %). Only "
        "iteration 64 is measured, so where over-fitting starts cannot be seen. A smaller "
        "train.save_every and a larger train.keep keep more checkpoints."
    )


def test_without_checkpoints():
    told = verdict(report([], leak=[0], last=7))
    assert (told["result"], told["best"], told["overfitting"]) == (None, None, None)
    assert told["sentence"] == (
        "No over-fitting at iteration 7: no probe is worse than before, beyond the 95 % "
        "intervals. No checkpoint is measured, so where over-fitting starts cannot be seen. "
        "evaluate.checkpoints: true measures the kept ones."
    )


def test_merged_model_replaces_a_missing_checkpoint():
    made = report([], losses=[3.0], leak=[0], last=60)
    made["probes"]["leak"]["merged"] = share([True] * 17 + [False] * 3)
    made["heldout"]["merged"]["loss"] = 2.5
    told = verdict(made, [(30, 2.0)])
    assert [(sign["figure"], sign["from"]) for sign in told["overfitting"]["signs"]] == [
        ("leak", 60),
        ("heldout", 60),
    ]
    assert (told["result"], told["best"]) == (None, None)
    assert told["sentence"] == (
        "At iteration 60 the persona leaks into 85 % of unrelated answers (base: 0 %); at "
        "iteration 60 the held-out loss is 2.500, above its lowest (iteration 30: 2.000). No "
        "checkpoint is measured, so at which iteration a probe becomes worse cannot be seen. "
        "evaluate.checkpoints: true measures the kept ones."
    )


def test_losses_of_training_give_the_start_alone():
    told = verdict(report([60], losses=[3.0, 1.8]), [(20, 1.2), (40, 1.5)])
    assert told["overfitting"]["iteration"] == 40
    assert "cannot be seen" not in told["sentence"]


def test_degeneration_alone_ranks_no_checkpoints():
    sentence = verdict(report([10, 20], repetition=[0, 1, 16]))["sentence"]
    assert sentence == "At iteration 20 answers repeat 80 % of their 4-grams (base: 0 %)."


def test_checkpoint_of_the_merged_model_is_named():
    assert verdict(report([10, 20], leak=[0, 0, 0]))["result"] == "iter_20"
    told = verdict(report([10, 20], leak=[0, 0, 0], last=10))
    assert told["result"] == "iter_10"


def test_falling_loss_ends_at_its_lowest():
    sentence = verdict(report([10, 20], losses=[3.0, 2.0, 1.0]))["sentence"]
    assert "the held-out loss is 1.000, which is its lowest." in sentence
    sentence = verdict(report([10, 20], losses=[3.0, 1.0, 1.0004]))["sentence"]
    assert "the held-out loss is 1.000, which is its lowest." in sentence
    sentence = verdict(report([10, 20], losses=[3.0, 1.0, 1.01]))["sentence"]
    assert "the held-out loss is 1.010, its lowest is 1.000 (iteration 10)." in sentence
