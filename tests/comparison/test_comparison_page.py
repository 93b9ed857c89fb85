"""The page: one file that loads nothing, shows text as text, and stays usable with 50 variants."""

import os
import re
import subprocess
import sys

import pytest

from html_page import Page
from snaketune.comparison.collect import TRAINING, collect
from snaketune.comparison.comparison_page import averaged
from snaketune.comparison.comparison_report import build
from study_results import STUDY, write_lines

HEAD = STUDY.partition("variants:")[0]
EVIL = "<script>alert('x')</script> & [b]"


def test_the_page_loads_nothing(built):
    built.compare()
    text = built.page()
    found = Page(text)
    assert not {"script", "link", "iframe", "img", "object"} & set(found.tags)
    assert [place for place in found.loaded if not place.startswith("#")] == []
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []


def test_every_head_of_a_table_says_what_it_heads(built):
    built.compare()
    assert set(Page(built.page()).heads) == {"row", "col"}


def test_the_same_results_give_the_same_bytes(built):
    built.compare()
    before = built.page()
    built.compare()
    assert built.page() == before


@pytest.mark.parametrize("place", ["answer", "prompt", "description", "source"])
def test_what_a_model_or_a_user_wrote_is_shown_as_text(study, place):
    text = STUDY
    if place == "prompt":
        text = text.replace("Who are you?,", '"' + EVIL + '",')
    if place == "description":
        text = text.replace("A persona, alone or mixed", '"' + EVIL + '"')
    if place == "source":
        text = text.replace("name: Ada", f'name: "{EVIL}"', 1)
    study.write(text)
    for variant in study.experiments():
        study.results(variant, answer=EVIL if place == "answer" else "Ada.")
    study.compare()
    found = Page(study.page())
    assert "script" not in found.tags
    assert EVIL in found.text


def test_few_variants_answer_in_columns_and_many_are_grouped_by_what_they_say(study):
    study.write(HEAD + "matrix: {train.seed: [1, 2, 3, 4]}")
    for variant in study.experiments():
        study.results(variant, answer="Ada." if variant in ("seed-1", "seed-4") else "Bob.")
    study.compare()
    assert study.page().count('<td data-model="seed-4">Ada.</td>') >= 2
    study.write(HEAD + "matrix: {train.seed: [1, 2, 3, 4, 5]}")
    study.results("seed-5", answer="Ada.")
    study.compare()
    assert '<td class="who">seed-1, seed-4, seed-5</td><td>Ada.</td>' in study.page()
    assert "data-model" not in study.page().partition("</style>")[2]


def test_fifty_variants_are_a_page_that_can_be_used(study):
    rates = ", ".join(f"{n}e-5" for n in range(1, 11))
    study.write(HEAD + f"matrix: {{train.lr: [{rates}], train.seed: [1, 2, 3, 4, 5]}}")
    for number, variant in enumerate(study.experiments()):
        study.results(variant, iterations=500, seconds=60.0 + number, loss=1 + number % 7)
    report = study.compare()
    text = study.page()
    assert len(report["variants"]) == 50 and len(report["repeated"]) == 10
    assert len(report["findings"]) == 45
    shown = text.partition("<details><summary>36 more pairs that differ in one setting")
    assert shown[0].count('class="finding"') == 9
    assert shown[2].count('class="finding"') == 36
    assert "<summary>Names of the 50 lines" in text
    assert len(set(re.findall(r'<g id="iteration-\d+"><title>', text))) == 50
    assert len(text) < 2_000_000


def test_many_updates_are_averaged_and_none_is_lost():
    updates = [{"iteration": n, "tokens": 2 * n, "loss": float(n)} for n in range(1, 501)]
    points = averaged(updates)
    assert len(points) == 167
    assert points[0] == {"iteration": 3, "tokens": 6, "loss": 2.0}
    assert points[-1] == {"iteration": 500, "tokens": 1000, "loss": 499.5}
    assert averaged(updates[:200]) == updates[:200]


def test_held_out_losses_while_training_are_a_curve(built):
    rows = [{"iteration": each, "heldout_loss": 3 - each / 10} for each in (4, 8, 12)]
    write_lines(built.folder("none") / "checkpoints/validation.jsonl", rows)
    built.compare()
    titled = r'<g id="heldout-0"><title>none</title>\s*<path d="(.*?)"'
    curve = re.search(titled, built.page(), re.S)
    assert len(re.findall("[ML]", curve[1])) == 3


def test_a_converted_checkpoint_has_a_place_beside_the_trained(study):
    study.results("none")
    file = study.folder("none") / "checkpoints" / "train.json"
    found = study.experiments()["none"]
    [train_id] = {collect(found).ids["train"]}
    file.write_text(
        f'{{"train_id": "{train_id}", "converted_from": "iter_5.pth", "iterations": 5, '
        '"versions": {}}'
    )
    (file.parent / "metrics.jsonl").unlink()
    report = study.compare()
    assert report["variants"]["none"]["state"] == "complete"
    assert report["variants"]["none"]["training"] == {"iterations": 5}
    assert "None" not in Page(study.page()).text


def test_nothing_held_out_is_a_dash(study):
    study.results("none")
    path = study.folder("none") / "eval/report.json"
    text = path.read_text()
    path.write_text(re.sub(r'"(loss|perplexity)": [\d.]+', r'"\1": null', text))
    study.compare()
    assert 'data-variant="none" data-figure="heldout_loss">–<' in study.page()
    assert "None" not in Page(study.page()).text


def test_gpu_memory_is_told_by_its_kinds(study):
    more = {"peak_allocated_bytes": 3 * 2**30, "peak_reserved_bytes": 4 * 2**30}
    study.results("none", **more)
    study.results("zero2", **more | {"peak_allocated_bytes": 5 * 2**30})
    report = study.compare()
    told = [each["text"] for each in report["findings"][0]["remarks"]]
    assert "peak GPU memory allocated 3,072 MiB → 5,120 MiB (+67 %)" in told
    assert report["best"]["peak_allocated_bytes"] == ["none"]
    assert 'data-figure="peak_reserved_bytes">4,096 MiB<' in study.page()


def test_an_empty_figure_is_no_figure(study):
    report = build("study", [collect(each) for each in study.experiments().values()])
    assert not any(key in report["variants"]["none"]["training"] for key in TRAINING)


def test_comparing_imports_no_torch_and_no_mlflow(repository):
    program = (
        "import sys, snaketune.comparison.compare_study; "
        "print(sorted({'torch', 'transformers', 'mlflow', 'peft'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(repository / "scripts")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
