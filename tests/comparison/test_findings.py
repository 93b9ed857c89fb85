"""What the page says of single changes, figure by figure."""

import json

import pytest

from study_results import STUDY, scored, write

HEAD = STUDY.partition("variants:")[0]


def remarks(report, start: str, end: str) -> dict[str, tuple[str, str]]:
    [found] = [each for each in report["findings"] if (each["from"], each["to"]) == (start, end)]
    return {
        each["figure"]: (
            each["verdict"],
            each["text"] + f", within {each['rule']}" * (each["verdict"] == "same"),
        )
        for each in found["remarks"]
    }


def test_pairs_that_differ_in_one_setting_are_found_and_no_others(built):
    found = [(each["from"], each["to"], each["key"]) for each in built.compare()["findings"]]
    assert found == [
        ("none", "zero2", "train.deepspeed"),
        ("none", "mixed", "data"),
        ("zero2", "mixed_zero2", "data"),
        ("mixed", "mixed_zero2", "train.deepspeed"),
    ]


def test_the_page_states_that_mixed_cures_the_leak(built):
    found = remarks(built.compare(), "none", "mixed")
    # 17 and 2 of 20 answers; Wilson's 95 % intervals, and the base model's of 0 of 20
    assert found["probe:leak"] == (
        "better",
        "leak falls: 85 % (64–95) → 10 % (3–30), beyond the intervals; cured: not to be told from "
        "the base model's 0 % (0–16)",
    )
    assert found["probe:retention"][0] == "better"
    assert found["probe:identity"] == (
        "same",
        "identity 95 % (76–99) → 100 % (84–100), within the intervals",
    )
    assert found["heldout_loss"] == (
        "incomparable",
        "held-out loss 0.020, and 2.500: of different held-out rows",
    )
    assert found["training_seconds"][0] == "costs"
    assert found["answers"] == (
        "differs",
        "0 of 2 answers to the same prompts are equal word for word",
    )
    page = built.page()
    assert "Better:" in page and "cured: not to be told from the base model" in page


def test_the_page_states_what_zero2_cost(built):
    report = built.compare()
    found = remarks(report, "none", "zero2")
    before, after = (
        report["variants"][name]["training"]["training_seconds"] for name in ("none", "zero2")
    )
    minutes = [f"{seconds // 60:.0f} min {round(seconds) % 60} s" for seconds in (before, after)]
    assert found["training_seconds"] == (
        "costs",
        f"training took {after / before:.2f} times as long ({' → '.join(minutes)})",
    )
    assert found["peak_rss_bytes"] == (
        "costs",
        "peak resident memory 2,400 MiB → 2,700 MiB (+12 %)",
    )
    assert found["heldout_loss"][0] == found["probe:leak"][0] == found["answers"][0] == "same"


def test_time_is_put_beside_the_tokens_it_was_for(built):
    report = built.compare()
    told = [report["variants"][name]["training"] for name in ("none", "mixed")]
    speeds = [each["tokens"] / each["training_seconds"] for each in told]
    words = (
        f", for {told[1]['tokens'] / told[0]['tokens']:.2f} times the tokens "
        f"({speeds[0]:.0f} → {speeds[1]:.0f} tokens/s)"
    )
    assert remarks(report, "none", "mixed")["training_seconds"][1].endswith(words)


def test_what_another_device_took_is_not_compared(built):
    path = built.folder("zero2") / "checkpoints/train.json"
    write(path, json.loads(path.read_text()) | {"device": "NVIDIA H200"})
    report = built.compare()
    found = remarks(report, "none", "zero2")
    words = "peak resident memory 2,400 MiB, and 2,700 MiB: on different devices"
    assert found["peak_rss_bytes"] == ("incomparable", words)
    assert found["training_seconds"][0] == "incomparable"
    assert not {"training_seconds", "tokens_per_second", "peak_rss_bytes"} & report["best"].keys()


def test_a_training_that_something_else_disturbed_is_not_judged_by_its_time(built):
    path = built.folder("zero2") / "checkpoints/metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["time_seconds"] = row["tokens"] / (20 if row["iteration"] in (3, 4, 5) else 400)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = built.compare()
    verdict, text = remarks(report, "none", "zero2")["training_seconds"]
    assert verdict == "incomparable"
    assert "something else used the machine during zero2; in the middle iteration " in text
    assert text.endswith(" → 400 tokens/s")
    assert not {"training_seconds", "tokens_per_second"} & report["best"].keys()
    assert "peak_rss_bytes" in report["best"]
    assert "its middle iteration made 400 tokens/s" in built.page()


def test_a_slow_first_iteration_is_no_disturbance(built):
    path = built.folder("zero2") / "checkpoints/metrics.jsonl"
    first, *rest = path.read_text().splitlines()
    first = json.dumps(json.loads(first) | {"time_seconds": 500.0})
    path.write_text("\n".join([first, *rest, ""]))
    assert not built.compare()["variants"]["zero2"]["pace"]["disturbed"]


def test_a_cure_that_only_lessens_is_told(built):
    report = json.loads((built.folder("mixed") / "eval/report.json").read_text())
    report["probes"]["leak"]["merged"] |= {"value": 0.35, "low": 0.18, "high": 0.57}
    write(built.folder("mixed") / "eval/report.json", report)
    verdict, text = remarks(built.compare(), "none", "mixed")["probe:leak"]
    assert verdict == "better"
    assert text.endswith("; lessened, not cured: the base model has 0 % (0–16)")


@pytest.mark.parametrize(
    ("figures", "figure", "verdict", "words"),
    [
        (
            {"seconds": 66.0},
            "training_seconds",
            "same",
            "within the 10 % by which single runs vary",
        ),
        ({"seconds": 30.0}, "training_seconds", "saves", "times as long (1 min 0 s → 30 s)"),
        ({"loss": 1.52}, "heldout_loss", "same", "1.500 → 1.520, within the 0.027 by which"),
        ({"loss": 1.2}, "heldout_loss", "better", "held-out loss falls: 1.500 → 1.200, beyond"),
        ({"loss": 1.9}, "heldout_loss", "worse", "held-out loss rises"),
        ({"memory": 10**9}, "peak_rss_bytes", "saves", "2,400 MiB → 954 MiB (-60 %)"),
        ({"probes": {"leak": 19}}, "probe:leak", "worse", "leak rises: 10 % (3–30) → 95 % (76–99)"),
        ({"probes": {"free": 19}}, "probe:free", None, ""),
    ],
)
def test_each_figure_is_judged_by_its_own_rule(study, figures, figure, verdict, words):
    study.write(HEAD + "variants: {a: {}, b: {train: {lr: 1e-5}}}")
    study.results("a", seconds=60.0)
    study.results("b", **{"seconds": 60.0} | figures)
    for name in ("a", "b"):
        path = study.folder(name) / "checkpoints/train.json"
        seconds = 60.0 if name == "a" else figures.get("seconds", 60.0)
        write(path, json.loads(path.read_text()) | {"training_seconds": seconds})
    found = remarks(study.compare(), "a", "b")
    assert (figure in found) is (verdict is not None)
    if verdict:
        assert found[figure][0] == verdict
        assert words in found[figure][1]


def test_a_probe_without_direction_is_neither_better_nor_worse(study):
    study.write(HEAD + "variants: {a: {}, b: {train: {lr: 1e-5}}}")
    study.results("a", probes={"free": 1})
    study.results("b", probes={"free": 19})
    report = study.compare()
    assert remarks(report, "a", "b")["probe:free"][0] == "differs"
    assert "probe:free" not in report["best"]


def test_the_same_held_out_rows_are_comparable_though_the_data_has_another_id(built):
    for name in ("none", "mixed"):
        folder = built.root / "store/data" / built.collect()[name].ids["data"]
        write(folder / "data.json", {"files": {"heldout.arrow": "the same"}})
    assert remarks(built.compare(), "none", "mixed")["heldout_loss"][0] == "worse"


def add_probe(study, variant: str, name: str, hits: int, base: int = 0, wanted: int = 1) -> None:
    path = study.folder(variant) / "eval/report.json"
    report = json.loads(path.read_text())
    report["probes"][name] = {"wanted": wanted, "base": scored(base), "merged": scored(hits)}
    write(path, report)


@pytest.mark.parametrize("end", ["mixed", "zero2"])
def test_answers_to_held_out_rows_are_compared_where_the_rows_are_the_same(built, end):
    for variant, hits in (("none", 1), (end, 19)):
        add_probe(built, variant, "heldout_answers.token_f1", hits)
        add_probe(built, variant, "repetition", hits, wanted=0)
    report = built.compare()
    found = remarks(report, "none", end)
    if end == "zero2":  # of the same data
        assert found["probe:heldout_answers.token_f1"][0] == "better"
        assert found["probe:repetition"][0] == "worse"
        assert report["best"]["probe:heldout_answers.token_f1"] == ["zero2"]
        return
    words = "5 % (1–24), and 95 % (76–99): of"
    assert found["probe:heldout_answers.token_f1"] == (
        "incomparable",
        f"heldout_answers.token_f1 {words} different held-out rows",
    )
    assert found["probe:repetition"] == (
        "incomparable",
        f"repetition {words} answers to different prompts",
    )
    assert not {"probe:repetition", "probe:heldout_answers.token_f1"} & report["best"].keys()


def test_a_cure_that_passes_the_base_model_is_told(built):
    add_probe(built, "none", "retention", 1, base=10)
    add_probe(built, "mixed", "retention", 20, base=10)
    text = remarks(built.compare(), "none", "mixed")["probe:retention"][1]
    assert text.endswith("; cured, and better than the base model's 50 % (30–70)")


def test_a_variant_without_a_figure_does_not_decide_what_is_best(built):
    for variant in ("mixed", "mixed_zero2"):  # of other data, with other held-out rows
        (built.folder(variant) / "eval/report.json").unlink()
    path = built.folder("zero2") / "eval/report.json"
    changed = json.loads(path.read_text())
    changed["heldout"]["merged"]["loss"] = 1.0
    write(path, changed)
    assert built.compare()["best"]["heldout_loss"] == ["none"]


def test_equal_variants_with_the_same_seed_are_no_repetition(study):
    study.write(HEAD + "variants: {a: {}, b: {}, c: {train: {lr: 1e-5}}}")
    for name, seconds in (("a", 60.0), ("b", 60.0), ("c", 61.0)):
        study.results(name, seconds=seconds)
    report = study.compare()
    assert report["repeated"] == []
    assert [(each["from"], each["to"]) for each in report["findings"]] == [("a", "c"), ("b", "c")]
    assert remarks(report, "a", "c")["training_seconds"][0] == "same"


SEEDS = "matrix: {train.lr: [1e-4, 2e-4], train.seed: [1, 2, 3]}"


def seeded(study, losses: dict[str, tuple[float, ...]], **more) -> dict:
    study.write(HEAD + SEEDS)
    for rate, each in losses.items():
        for seed, loss in enumerate(each, start=1):
            study.results(f"lr-{rate}_seed-{seed}", loss=loss, **more)
    return study.compare()


def test_repeated_seeds_are_one_finding_with_mean_and_spread(study):
    report = seeded(study, {"0.0001": (1.0, 2.0, 3.0), "0.0002": (4.0, 5.0, 6.0)})
    [found] = report["findings"]
    assert (found["from"], found["to"]) == ("lr-0.0001 (3 seeds)", "lr-0.0002 (3 seeds)")
    told = remarks(report, found["from"], found["to"])["heldout_loss"]
    words = "held-out loss rises: 2.000 ± 1.000 → 5.000 ± 1.000, beyond the spread of the seeds"
    assert told == ("worse", words)
    repeated = {each["name"]: each["figures"]["heldout_loss"] for each in report["repeated"]}
    assert repeated["lr-0.0001 (3 seeds)"] == {"mean": 2.0, "deviation": 1.0, "n": 3}
    assert "Repeated seeds" in study.page()


def test_a_difference_within_the_spread_is_called_that(study):
    report = seeded(study, {"0.0001": (1.0, 2.0, 3.0), "0.0002": (3.0, 4.0, 5.0)})
    [found] = report["findings"]
    verdict, words = remarks(report, found["from"], found["to"])["heldout_loss"]
    assert verdict == "same"
    assert words.endswith("2.000 ± 1.000 → 4.000 ± 1.000, within the spread of the seeds")


def test_a_single_run_beside_repeated_ones_is_judged_by_their_spread(study):
    report = seeded(study, {"0.0001": (1.0, 2.0, 3.0), "0.0002": (7.0,)})
    [found] = report["findings"]
    # 4.303 × 1 × sqrt(1 + 1/3) = 4.97, the difference is 5
    assert remarks(report, found["from"], found["to"])["heldout_loss"][0] == "worse"


def test_seeds_that_are_evaluated_count_though_the_first_is_not(study):
    [before] = seeded(study, {"0.0001": (1.0, 2.0, 3.0), "0.0002": (4.0, 5.0, 6.0)})["findings"]
    for rate in ("0.0001", "0.0002"):
        (study.folder(f"lr-{rate}_seed-1") / "eval/report.json").unlink()
    [after] = study.compare()["findings"]
    figures, left = ([each["figure"] for each in found["remarks"]] for found in (before, after))
    assert figures == left
    assert {"probe:identity", "probe:leak", "heldout_loss"} <= set(left)


def test_seeds_alone_make_one_group_and_no_finding(study):
    study.write(HEAD + "matrix: {train.seed: [1, 2, 3]}")
    for seed in (1, 2, 3):
        study.results(f"seed-{seed}", loss=float(seed))
    report = study.compare()
    assert report["findings"] == []
    assert [each["name"] for each in report["repeated"]] == ["study (3 seeds)"]


@pytest.mark.parametrize(
    ("figure", "names"),
    [
        ("probe:leak", ["mixed", "mixed_zero2"]),
        ("probe:retention", ["mixed", "mixed_zero2"]),
        ("probe:identity", None),  # the intervals overlap
        ("heldout_loss", None),  # of different rows
        ("training_seconds", ["none"]),
        ("peak_rss_bytes", ["none", "mixed", "mixed_zero2"]),
        ("tokens", None),  # neither more nor fewer is better
    ],
)
def test_the_best_is_marked_only_where_others_are_worse_beyond_chance(built, figure, names):
    assert built.compare()["best"].get(figure) == names


def test_more_tokens_a_second_are_better(built):
    best = built.compare()["best"]["tokens_per_second"]
    told = {name: each["training"] for name, each in built.compare()["variants"].items()}
    fastest = max(told, key=lambda name: told[name]["tokens"] / told[name]["training_seconds"])
    assert fastest in best and "zero2" in told and "zero2" not in best
