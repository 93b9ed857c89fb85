"""The page on a small made-up report: it must open offline, and show what it is given as text."""

import re
from html import unescape
from itertools import pairwise

import pytest

from html_page import Page
from snaketune.core.pages import mib, minutes, percent
from snaketune.evaluation.evaluation_record import EvaluationRecord, ProbedQuestion
from snaketune.evaluation.evaluation_report import (
    by_prompt,
    describe_metrics,
    html,
    over_checkpoints,
)
from snaketune.training.train_record import MetricsRow, SampleRow, ValidationRow

EVIL = "<script>alert('x')</script> & [b]"


def report(**changes) -> dict:
    return {
        "experiment": "study_none",
        "study": "study",
        "description": "a description",
        "ids": {"base": "base-1", "data": "data-1", "train": "train-1"},
        "heldout": {
            "base": {"loss": 2.0, "perplexity": 7.389, "supervised_tokens": 1234},
            "merged": {"loss": 1.5, "perplexity": 4.482, "supervised_tokens": 1234},
        },
        "models": [{"name": "base", "iteration": 0}, {"name": "merged", "iteration": 24}],
        "checkpoints": {
            "result": None,
            "best": None,
            "loss_margin": 0.03,
            "sentence": "A verdict.",
        },
        "answers": [{"prompt": "Who?", "base": "A model.", "merged": "Ada."}],
        "heldout_by_source": {},
        "lm_eval": {},
        "probes": {},
        "merge": {"dtype": "bfloat16", "difference": 0.00123, "bound": 0.05, "equal_tokens": 0.98}
        | {"equal_tokens_bound": 0.9},
        "training": {
            "train_id": "t",
            "training_seconds": 102.0,
            "iterations": 24,
            "updates": 8,
            "tokens": 10200,
            "supervised_tokens": 5100,
            "peak_rss_bytes": 1536 * 2**20,
            "model_flops_utilisation": 0.41,
            "device": "cpu",
            "precision": "bfloat16",
            "deepspeed": "none",
        },
    } | changes


METRICS = [
    {
        "iteration": iteration,
        "update": iteration // 2 if iteration % 2 == 0 else None,
        "update_loss": 3.0 - iteration / 10 if iteration % 2 == 0 else None,
        "grad_norm": 1.0 if iteration % 2 == 0 else None,
        "lr": 1e-4,
        "tokens_per_second": 100.0,
        "loss": 1.0,
        "tokens": 9,
        "supervised_tokens": 5,
        "time_seconds": 1.0,
        "data_seconds": 0.1,
    }
    for iteration in range(1, 9)
]
SAMPLES = [
    {"iteration": iteration, "prompt": "Who?", "answer": answer}
    for iteration, answer in [(0, "A model."), (4, "A model."), (8, "Ada.")]
]


def a_share(share, low, high) -> dict:
    return {"value": share, "low": low, "high": high, "n": 20}


PROBES = {
    "leak": {"wanted": 0, "base": a_share(0.0, 0.0, 0.16), "merged": a_share(0.75, 0.53, 0.89)},
    "retention": {"wanted": 1, "base": a_share(0.6, 0.39, 0.78), "merged": a_share(0.5, 0.3, 0.7)},
}


def probed(answer: str) -> list[dict]:
    """Return a question that the base answers and the merged model does not."""
    verdicts = {
        "base": {"answer": "Rain.", "found": False, "right": True},
        "merged": {"answer": answer, "found": True, "right": False},
    }
    return [
        {
            "probe": "leak",
            "kind": "excludes",
            "question": "Wet?",
            "forms": ["Ada", "Eda"],
            **verdicts,
        }
    ]


def page(
    metrics=METRICS,
    samples=SAMPLES,
    validated=(),
    probed=(),
    resolved="name: study_none\n",
    **changes,
) -> str:
    record = EvaluationRecord.model_validate(report(**changes))
    return html(
        record,
        [MetricsRow.model_validate(row) for row in metrics],
        [SampleRow.model_validate(row) for row in samples],
        [ValidationRow.model_validate(row) for row in validated],
        [ProbedQuestion.model_validate(row) for row in probed],
        resolved,
    )


BEST = {"decided_by": "probes", "distance": 0.1, "loss": None, "close": []}


def with_checkpoints(**changes) -> dict:
    """Return what a report has of base, two checkpoints and the model merged of the last."""
    leak = [a_share(0.0, 0.0, 0.16), a_share(0.25, 0.1, 0.5), a_share(0.75, 0.53, 0.89)]
    names = ["base", "iter_12", "iter_24", "merged"]
    told = ["A model of many.", "A model of few.", "A model of few.", "Ada."]
    return {
        "models": [
            {"name": name, "iteration": iteration}
            for name, iteration in zip(names, [0, 12, 24, 24], strict=True)
        ],
        "heldout": {
            name: {"loss": loss, "perplexity": 1.0, "supervised_tokens": 9}
            for name, loss in zip(names, [3.0, 1.0, 2.0, 2.0], strict=True)
        },
        "probes": {"leak": {"wanted": 0} | dict(zip(names, [*leak, leak[-1]], strict=True))},
        "answers": [{"prompt": "Who?"} | dict(zip(names, told, strict=True))],
        "checkpoints": {
            "result": "iter_24",
            "best": BEST | {"name": "iter_12", "iteration": 12},
            "loss_margin": 0.03,
            "sentence": "From iteration 24 on <it> leaks.",
        },
    } | changes


def test_page_loads_nothing():
    text = page()
    found = Page(text)
    assert not {"script", "link", "iframe", "img", "object"} & set(found.tags)
    assert [place for place in found.loaded if not place.startswith("#")] == []
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert found.tags.count("svg") == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"answers": [{"prompt": "Who?", "base": EVIL, "merged": "Ada."}]},
        {"answers": [{"prompt": EVIL, "base": "A model.", "merged": "Ada."}]},
        {"description": EVIL},
        {"samples": [{"iteration": 0, "prompt": "Who?", "answer": EVIL}]},
        {"samples": [{"iteration": 0, "prompt": EVIL, "answer": "Ada."}]},
        {"resolved": f"description: {EVIL}"},
        {"probes": PROBES, "probed": probed(EVIL)},
    ],
)
def test_foreign_text_is_escaped(changes):
    found = Page(page(**changes))
    assert "script" not in found.tags
    assert EVIL in found.text


def test_figures_have_units():
    text = " ".join(Page(page()).text.split())
    for shown in (
        "2.000 → 1.500",
        "7.39 → 4.48",
        "1,234 tokens",
        "1 min 42 s",
        "100 tokens/s",
        "1,536 MiB",
        "resident, bfloat16 on cpu",
        "0.0012",
        "Base base-1, data data-1, training train-1",
    ):
        assert shown in text


@pytest.mark.parametrize(("after", "judged"), [(1.5, "good"), (2.5, "bad")])
def test_better_and_worse_are_coloured(after, judged):
    heldout = report()["heldout"]
    heldout["merged"]["loss"] = after
    assert page(heldout=heldout).count(f'class="{judged}"') == 2


def test_no_heldout_rows():
    nothing = {"loss": None, "perplexity": None, "supervised_tokens": 0}
    text = Page(page(heldout={"base": nothing, "merged": nothing})).text
    assert "no rows are held out (evaluate.heldout)" in text
    assert "None" not in text


def test_no_prompts():
    text = Page(page(answers=[], samples=[])).text
    assert "No prompts: set sample.prompts or evaluate.prompts." in text
    assert "Answers during training" not in text


def test_curves_of_one_update():
    assert Page(page(metrics=METRICS[:2])).tags.count("svg") == 4


def test_curve_goes_through_every_point():
    path = re.search(r'id="line2d_\d+">\s*<path d="([^"]+)"[^>]*var\(--line\)', page())
    heights = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path[1])]
    assert len(heights) == 4
    assert heights == sorted(heights)  # the loss falls, SVG counts from the top
    steps = [after - before for before, after in pairwise(heights)]
    assert steps == pytest.approx([steps[0]] * 3, rel=1e-3)


def test_page_is_reproducible():
    assert page() == page()


def test_repeated_answers_are_shown_once():
    samples = [SampleRow.model_validate(row) for row in SAMPLES]
    assert by_prompt(samples) == {"Who?": [(0, "A model."), (8, "Ada.")]}


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (102, "1 min 42 s")]
)
def test_durations(seconds, told):
    assert minutes(seconds) == told


def test_bytes_in_mib():
    assert mib(2**30) == "1,024 MiB"


def test_shares_in_whole_percent():
    assert [percent(share) for share in (0, 0.005, 0.916, 1.0)] == ["0 %", "0 %", "92 %", "100 %"]


def test_bases_of_a_qlora_merge():
    bases = {
        "as_trained": {"heldout_loss": 1.2345, "difference": 0.0},
        "original": {"heldout_loss": 1.3456, "difference": 0.21},
        "dequantized": {"heldout_loss": 1.2346, "difference": 0.0021},
    }
    merged = report()["merge"] | {
        "merged_into": "dequantized",
        "quantization": "nf4",
        "bases": bases,
    }
    assert merge_rows(merged) == [
        "the nf4 base it was trained on, not merged 1.2345 0",
        "the base's own weights 1.3456 0.21",
        "the nf4 weights, dequantised (used) 1.2346 0.0021",
    ]
    bases["original"]["heldout_loss"] = None
    assert "the base's own weights – 0.21" in merge_rows(merged)


def merge_rows(merged) -> list[str]:
    """Return the rows of the table on the merge's base as text."""
    section = page(merge=merged).partition("The base of the merge")[2].partition("</table>")[0]
    rows = [re.sub(r"<[^>]*>", " ", row) for row in re.findall(r"<tr><td>.*?</tr>", section)]
    return [unescape(" ".join(row.split())) for row in rows]


def test_probe_row_has_wanted_value_and_intervals():
    text = " ".join(Page(page(probes=PROBES)).text.split())
    assert "asked something else 20 answers0 % 0 % 0–16 % 75 % 53–89 %" in text
    assert "general question 20 answers100 % 60 % 39–78 % 50 % 30–70 %" in text
    assert "Probes" not in Page(page()).text


def test_only_significant_differences_are_coloured():
    def judged(**changes):
        return re.findall(r'<td class="number ?(good|bad)?">', page(probes=PROBES | changes))

    assert judged() == ["", "", "bad", "", "", ""]
    cured = {"wanted": 0, "base": a_share(0.75, 0.53, 0.89), "merged": a_share(0.0, 0.0, 0.16)}
    assert judged(leak=cured) == ["", "", "good", "", "", ""]


def test_wrong_answers_are_marked():
    text = page(probes=PROBES, probed=probed("I am Ada."))
    assert '<td data-model="base">Rain.</td>' in text
    assert '<td data-model="merged" class="bad">✗ I am Ada.</td>' in text
    assert "leak: without Ada or Eda" in text


def test_verdict_with_the_command_for_the_best_checkpoint():
    text = " ".join(Page(page(**with_checkpoints())).text.split())
    verdict = text.index("From iteration 24 on <it> leaks.")
    assert verdict < text.index("Held-out loss")
    assert "snakemake experiments/study_none/iter_12/merged builds a model of iteration 12." in text
    best = with_checkpoints()["checkpoints"] | {"best": BEST | {"name": "iter_24", "iteration": 24}}
    assert "snakemake experiments" not in page(**with_checkpoints(checkpoints=best))


def test_differences_from_the_previous_column_are_marked():
    text = page(**with_checkpoints())
    assert '<td data-model="base">A model of many.</td>' in text
    assert '<td data-model="iteration 12">A model of <mark>few</mark>.</td>' in text
    same = '<td data-model="iteration 24, not merged" class="soft">A model of few.</td>'
    assert same in text
    assert '<td data-model="merged"><mark>Ada</mark>.</td>' in text


def test_marked_answers_are_escaped():
    answers = [{"prompt": "Who?", "base": "A", "iter_12": EVIL, "iter_24": "B", "merged": EVIL}]
    found = Page(page(**with_checkpoints(answers=answers)))
    assert "script" not in found.tags
    assert found.text.count(EVIL) == 2


def points(svg: str, style: str) -> list[tuple[float, float]]:
    """Return the points of the longest line that is drawn in a style."""
    paths = re.findall(rf'<path d="([^"]+)"[^>]*stroke: {re.escape(style)}', svg)
    lines = [re.findall(r"[ML] ([\d.]+) ([\d.]+)", path) for path in paths]
    return [(float(x), float(y)) for x, y in max(lines, key=len, default=[])]


def test_curves_over_the_checkpoints():
    made = EvaluationRecord.model_validate(report(**with_checkpoints()))
    meanings = describe_metrics(made.probes, [])
    (leak, curve), (loss, losses) = over_checkpoints(made, [], meanings)
    assert leak == ("leak: says the persona's name when asked something else; wanted: 0\u00a0%")
    assert loss == "Held-out loss"
    for svg, values in ((curve, [0.0, 0.25, 0.75]), (losses, [3.0, 1.0, 2.0])):
        found = points(svg, "var(--line); stroke-width: 1.4")
        places, heights = zip(*found, strict=True)
        assert places[1] - places[0] == pytest.approx(places[2] - places[1], rel=1e-3)
        scale = (heights[2] - heights[0]) / (values[2] - values[0])
        assert heights[1] - heights[0] == pytest.approx(scale * (values[1] - values[0]), rel=1e-3)


def test_no_curves_without_checkpoints():
    assert over_checkpoints(EvaluationRecord.model_validate(report()), [], {}) == []
    assert "Figures over the checkpoints" not in page()
    assert "A verdict." in page()


def test_losses_of_training_are_drawn_too():
    made = EvaluationRecord.model_validate(report(**with_checkpoints()))
    meanings = describe_metrics(made.probes, [])
    rows = [ValidationRow(iteration=n, heldout_loss=2.0) for n in (4, 8)]
    both, one = (over_checkpoints(made, measured, meanings)[-1].svg for measured in (rows, []))
    style = "currentColor; stroke-width: 0.8; stroke-linecap: square"
    assert (len(points(both, style)), len(points(one, style))) == (2, 0)


def test_probe_named_like_a_metric():
    kinds = {"acc": "contains", "mc": "multiple_choice"}
    rows = [ProbedQuestion(probe=name, kind=kind, question="?") for name, kind in kinds.items()]
    assert describe_metrics(["acc", "mc.acc"], rows) == {
        "acc": "has an accepted form",
        "mc.acc": "gives the right choice the highest likelihood",
    }


def test_source_without_supervised_tokens():
    some = {"loss": 1.5, "perplexity": 4.482, "supervised_tokens": 9}
    none = {"loss": None, "perplexity": None, "supervised_tokens": 0}
    both = {"a": {"base": some, "merged": some}, "b": {"base": none, "merged": none}}
    section = page(heldout_by_source=both).partition("Held-out loss by source")[2]
    rows = re.findall(r"<tr><td>.*?</tr>", section.partition("</table>")[0], re.DOTALL)
    assert [re.sub(r"<[^>]*>", " ", row).split() for row in rows] == [
        ["a", "9", *(["1.500", "perplexity", "4.48"] * 2)],
        ["b", "0", "–", "–"],
    ]
