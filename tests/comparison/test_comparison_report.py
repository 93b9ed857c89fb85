"""Every number of report.json, table.csv and the page, computed again from the variants' files."""

import csv
import json
import math
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest

from study_results import PROMPTS, STUDY

NAMES = ("none", "zero2", "mixed", "mixed_zero2")


@pytest.fixture
def compared(built):
    return built, built.compare()


def read(path: Path):
    return json.loads(path.read_text())


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def plain(folder: Path) -> dict[str, float]:
    """Compute a variant's figures from metrics.jsonl, eval/report.json and the files on disk."""
    rows = lines(folder / "checkpoints/metrics.jsonl")
    report = read(folder / "eval/report.json")
    figures = {
        "iterations": max(row["iteration"] for row in rows),
        "updates": len({row["update"] for row in rows} - {None}),
        "tokens": sum(row["tokens"] for row in rows),
        "supervised_tokens": sum(row["supervised_tokens"] for row in rows),
        "training_seconds": math.fsum(row["time_seconds"] for row in rows),
        "peak_rss_bytes": max(row["peak_rss_bytes"] for row in rows),
        "first_loss": next(row["update_loss"] for row in rows if row["update"]),
        "last_loss": rows[-1]["update_loss"],
        "checkpoints_bytes": sum(
            path.stat().st_size
            for path in (folder / "checkpoints").iterdir()
            if path.is_file() and path.name != "last.pth"
        ),
        "adapter_bytes": (folder / "adapter/weights.safetensors").stat().st_size,
        "merged_bytes": (folder / "merged/weights.safetensors").stat().st_size,
        "heldout_loss": report["heldout"]["merged"]["loss"],
        "heldout_perplexity": math.exp(report["heldout"]["merged"]["loss"]),
        "heldout_supervised_tokens": report["heldout"]["merged"]["supervised_tokens"],
        "base_heldout_loss": report["heldout"]["base"]["loss"],
    }
    for kind in ("", "supervised_"):
        per_second = figures[f"{kind}tokens"] / figures["training_seconds"]
        figures[f"{kind}tokens_per_second"] = per_second
    for name, each in report["probes"].items():
        figures[f"probe_{name}"] = each["merged"]["value"]
        figures |= {f"probe_{name}_{key}": each["merged"][key] for key in ("low", "high", "n")}
        figures[f"base_probe_{name}"] = each["base"]["value"]
    return figures


def test_every_number_of_the_table_is_that_of_the_files(compared):
    built, _ = compared
    with (built.root / "experiments/study/compare/table.csv").open() as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert tuple(rows) == NAMES
    for name, row in rows.items():
        expected = plain(built.folder(name))
        for column, value in expected.items():
            assert float(row[column]) == pytest.approx(value, rel=1e-12), (name, column)
        assert row["state"] == "complete"
        assert row["train.deepspeed"] == ("zero2" if "zero2" in name else "none")
        assert row["data"] == "persona (× 20, name: Ada)" + " + general" * ("mixed" in name)
        assert (row["effective_batch"], row["scale_of_LoRA"]) == ("2", "2.0")
        assert row["mlflow_run_id"] == f"study_{name}" * 2
        ids = read(built.folder(name) / "eval/report.json")["ids"]
        assert [row[f"{kind}_id"] for kind in ids] == list(ids.values())
        not_figures = {"variant", "experiment", "state", "train.deepspeed", "data", "device"}
        not_figures |= {f"{kind}_id" for kind in ids} | {"mlflow_run_id", "mlflow_tracking_uri"}
        not_figures |= {"effective_batch", "scale_of_LoRA", "target_modules", "max_length"}
        not_figures |= {"truncation", "packing", "precision", "processes"}
        on_a_gpu = {"peak_allocated_bytes", "peak_reserved_bytes"}
        assert set(row) - not_figures - on_a_gpu == set(expected)
        assert all(row[column] == "" for column in on_a_gpu)


def test_every_number_of_the_report_is_that_of_the_files(compared):
    built, report = compared
    for name, found in report["variants"].items():
        expected = plain(built.folder(name))
        told = found["training"] | found["disk"]
        told |= {f"heldout_{key}": value for key, value in found["heldout"]["merged"].items()}
        told["base_heldout_loss"] = found["heldout"]["base"]["loss"]
        for probe, each in found["probes"].items():
            told[f"probe_{probe}"] = each["merged"]["value"]
            told |= {f"probe_{probe}_{key}": each["merged"][key] for key in ("low", "high", "n")}
            told[f"base_probe_{probe}"] = each["base"]["value"]
        assert told.pop("result_iteration") == expected["iterations"]
        assert told == pytest.approx(expected, rel=1e-12)
        rows = lines(built.folder(name) / "checkpoints/metrics.jsonl")[1:]
        rates = sorted(row["tokens"] / row["time_seconds"] for row in rows)
        seconds = math.fsum(row["time_seconds"] for row in rows)
        pace = {
            "median_tokens_per_second": (rates[len(rates) // 2] + rates[~(len(rates) // 2)]) / 2,
            "tokens_per_second": sum(row["tokens"] for row in rows) / seconds,
        }
        assert found["pace"] == pytest.approx(pace | {"disturbed": False}, rel=1e-12)


def test_the_findings_numbers_are_those_of_the_files(compared):
    built, report = compared
    for finding in report["findings"]:
        for remark in finding["remarks"]:
            if remark["figure"] == "answers":
                continue
            figure = remark["figure"].replace("probe:", "probe_")
            for end, value in (("from", remark["before"]), ("to", remark["after"])):
                expected = plain(built.folder(finding[end]))[figure]
                assert value == pytest.approx(expected, rel=1e-12)


def test_samples_are_those_of_equal_iterations(compared):
    built, report = compared
    told = {(row["prompt"], row["iteration"]): row["answers"] for row in report["samples"]}
    expected: dict = {}
    for name in NAMES:
        for row in lines(built.folder(name) / "checkpoints/samples.jsonl"):
            key = row["prompt"], row["iteration"]
            expected.setdefault(key, {})[name] = row["answer"]
    assert told == {key: answers for key, answers in expected.items() if len(answers) > 1}
    assert {iteration for _, iteration in told} == {*range(0, 37, 4)}
    assert set(told[PROMPTS[0], 36]) == {"mixed", "mixed_zero2"}


def test_a_prompt_only_one_variant_samples_is_left_out_of_several_but_not_of_one(study):
    study.write(STUDY.partition("variants:")[0])
    study.results("study", iterations=8)
    assert [row["iteration"] for row in study.compare()["samples"]] == [0, 4, 8] * 2


def test_every_figure_can_be_traced(compared):
    built, report = compared
    for name, found in report["variants"].items():
        folder = f"experiments/study_{name}"
        assert found["files"]["metrics"] == f"{folder}/checkpoints/metrics.jsonl"
        assert found["files"]["evaluation"] == f"{folder}/eval/report.json"
        assert all((built.root / file).exists() for file in found["files"].values())
        assert found["mlflow"] == {
            "tracking_uri": "sqlite:///store/mlflow/mlflow.db",
            "run_id": f"study_{name}" * 2,
        }
        for shown in (*found["files"].values(), found["mlflow"]["run_id"]):
            if "validation" not in shown:
                assert shown in built.page()


def test_the_numbers_on_the_data_are_those_of_its_reports(compared):
    built, report = compared
    page = built.page().partition("<h2>Data</h2>")[2]
    for name in ("none", "mixed"):
        found = report["variants"][name]
        written = read(built.root / "store/data" / found["ids"]["data"] / "report.json")
        assert len(found["data"]["sources"]) == len(written["sources"]) == 1 + (name == "mixed")
        for told, source in zip(found["data"]["sources"], written["sources"], strict=True):
            assert told.pop("dropped") == source["dropped"]["too long"]["samples"] == 3
            cut = {"truncated": told.pop("truncated"), "tokens_cut": told.pop("tokens_cut")}
            assert list(cut.values()) == list(source["truncated"].values())
            assert told == {key: source[key] for key in told} and len(told) == 6
        for part in ("train", "heldout"):
            assert found["data"][part] == written[part]
    row = r"persona</td><td.*?>12<.*?>3<.*?>1<small>34 tokens.*?>1<.*?>220<.*?>14,040<"
    assert len(re.findall(row, page)) == 2


class Cells(HTMLParser):
    """The texts of a page's cells by variant (or group) and figure."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: dict[tuple[str, str], str] = {}
        self._at: tuple[str, str] | None = None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        if tag == "td":
            name = told.get("data-variant", told.get("data-group"))
            self._at = (name, told["data-figure"]) if name else None

    def handle_endtag(self, tag):
        self._at = None if tag == "td" else self._at

    def handle_data(self, data):
        if self._at:
            self.cells[self._at] = self.cells.get(self._at, "") + data


def minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def test_the_numbers_of_the_page_are_those_of_the_files(compared):
    built, report = compared
    cells, seen = Cells(built.page()).cells, set()
    for (name, figure), text in cells.items():
        values = plain(built.folder(name))
        value = values[figure.replace("probe:", "probe_")]
        seen.add(figure)
        best = " ★" if name in report["best"].get(figure, []) else ""
        if figure.startswith("probe:"):
            key = figure.replace("probe:", "probe_")
            low, high = (round(100 * values[f"{key}_{end}"]) for end in ("low", "high"))
            expected = f"{100 * value:.0f} %{best}({low}–{high}) n = 20"
        elif figure == "heldout_loss":
            expected = f"{value:.3f}{best}base {values['base_heldout_loss']:.3f}"
        elif figure == "training_seconds":
            expected = minutes(value) + best
        elif figure == "peak_rss_bytes":
            expected = f"{value / 1024 / 1024:,.0f} MiB{best}"
        elif figure.endswith("_bytes"):
            expected = f"{value / 1024 / 1024:.2f} MiB{best}"
        elif figure.endswith("per_second"):
            expected = f"{value:.0f}{best}"
        else:
            expected = f"{value:,}"
        assert text == expected, (name, figure)
    assert len(seen) == 15 and len(cells) == 15 * 4


def test_the_numbers_of_repeated_seeds_are_numpys(study):
    study.write(STUDY.partition("variants:")[0] + "matrix: {train.seed: [1, 2, 3]}")
    for seed, seconds in ((1, 70.0), (2, 80.0), (3, 95.0)):
        study.results(f"seed-{seed}", seconds=seconds, loss=1 + seed / 10)
    [group] = study.compare()["repeated"]
    for figure in ("training_seconds", "heldout_loss", "tokens_per_second"):
        values = [plain(study.folder(f"seed-{seed}"))[figure] for seed in (1, 2, 3)]
        told = group["figures"][figure]
        assert told["mean"] == pytest.approx(sum(values) / 3)
        assert told["deviation"] == pytest.approx(statistics.stdev(values))
    cells = Cells(study.page()).cells
    assert cells["study (3 seeds)", "heldout_loss"] == "1.200± 0.100, n = 3"


def test_the_curves_go_through_every_update(compared):
    built, _ = compared
    page = built.page()
    for key in ("iteration", "tokens", "seconds"):
        for place, name in enumerate(NAMES):
            group = re.search(rf'<g id="{key}-{place}"><title>(.*?)</title>(.*?)</g>', page, re.S)
            assert group[1] == name
            points = re.findall(r"[ML] ([\d.]+) ([\d.]+)", group[2])
            rows = lines(built.folder(name) / "checkpoints/metrics.jsonl")
            losses = [row["update_loss"] for row in rows if row["update"]]
            assert len(points) == len(losses)
            heights = [-float(height) for _, height in points]
            ratio = (heights[-1] - heights[0]) / (losses[-1] - losses[0])
            for height, loss in zip(heights, losses, strict=True):
                assert height - heights[0] == pytest.approx(ratio * (loss - losses[0]), abs=0.01)


def test_the_three_curves_are_against_iterations_tokens_and_time(compared):
    built, _ = compared
    page, rows = built.page(), lines(built.folder("mixed") / "checkpoints/metrics.jsonl")
    done = {"iteration": 0, "tokens": 0, "seconds": 0.0}
    places: dict[str, list[float]] = {key: [] for key in done}
    for row in rows:
        done["iteration"] += 1
        done["tokens"] += row["tokens"]
        done["seconds"] += row["time_seconds"]
        if row["update"]:
            for key, value in done.items():
                places[key].append(value)
    for key, expected in places.items():
        group = re.search(rf'<g id="{key}-2">.*?<path d="(.*?)"', page, re.S)[1]
        across = [float(x) for x, _ in re.findall(r"[ML] ([\d.]+) ([\d.]+)", group)]
        ratio = (across[-1] - across[0]) / (expected[-1] - expected[0])
        for x, value in zip(across, expected, strict=True):
            assert x - across[0] == pytest.approx(ratio * (value - expected[0]), abs=0.01)
