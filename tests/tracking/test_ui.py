"""MLflow's own pages in a browser: a study's ablation is seen at a glance.

pip install -e '.[test,browser]' && pytest -m browser
"""

from pathlib import Path

import pytest

from chromium import open_chromium
from fake_study import VARIANTS, write_study
from snaketune.tracking.ablation_view import path
from snaketune.tracking.mlflow_client import connect
from snaketune.tracking.study import send_study
from snaketune.tracking.tracked_run import send_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page():
    with open_chromium() as browser:
        page = browser.new_page(viewport={"width": 1900, "height": 950})
        page.set_default_timeout(30_000)
        yield page


@pytest.fixture(scope="module")
def shown(server, tmp_path_factory):
    """A study on the server: its address, MLflow's experiment and the runs by variant."""
    root = tmp_path_factory.mktemp("shown")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", server.url)
        for folder in write_study(root, "shown").values():
            send_run(folder)
        send_study("shown", root / "experiments" / "shown" / "compare")
        client = connect()
    number = client.get_experiment_by_name("shown").experiment_id
    runs = client.search_runs([number], "tags.kind = 'variant'")
    return server.url, number, {run.data.tags["variant"]: run.info.run_id for run in runs}


def look(page, name: str, url: str, *words: str) -> str:
    """Open a page, wait for words, keep a picture for people, and return its text in one line."""
    page.goto("about:blank")  # the pages are one program: only their address would change
    page.goto(url)
    for word in words:
        page.get_by_text(word, exact=True).first.wait_for()
    page.wait_for_timeout(500)
    pictures = Path("logs/browser")
    pictures.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=pictures / f"{name}.png")
    return " ".join(page.inner_text("body").split())


def test_run_list_shows_variants_with_their_results(page, shown):
    url, number, _ = shown
    text = look(page, "runs", url + path(number), "after/leak", "shown_mixed_zero2")
    for variant in VARIANTS:
        row = page.locator(".ag-row", has=page.get_by_text(f"shown_{variant}", exact=True))
        assert row.count() > 0, variant
    columns = (
        "after/heldout_loss",
        "after/identity",
        "after/leak",
        "cost/peak_mib",
        "cost/seconds",
    )
    assert all(column in text for column in (*columns, "data", "deepspeed"))
    figures = ("2.55", "2.56", "3.1", "3.12", "223", "270.5", "62.5", "81.25", "2048", "2560")
    assert set(figures) <= set(text.split())
    assert "assistant ×20 + general" in text
    assert "4 matching runs" in text


def test_a_leak_is_seen_to_be_cured_in_the_charts(page, shown):
    url, number, _ = shown
    text = look(page, "charts", f"{url}{path(number)}&compareRunsMode=CHART", "after/leak", "0.50")
    assert "after/leak 1.00 1.00 0.50 0.00" in text  # from the last bar to the first
    assert "after/identity 1.00 1.00 1.00 1.00" in text
    assert "after/heldout_loss 3.12 3.10 2.56 2.55" in text
    order = [text.index(f"{section} (") for section in ("after", "cost", "probe", "System metrics")]
    assert order == sorted(order)


def test_answers_of_all_variants_are_side_by_side(page, shown):
    url, number, _ = shown
    address = f"{url}{path(number)}&compareRunsMode=ARTIFACT"
    text = look(page, "tables", address, "Who are you?", "I am Ada, after 223 s.")
    assert "Table: eval/answers.json" in text
    assert "Group by: prompt" in text and "Compare: answer" in text
    assert "I am Ada, after 270.5 s." in text


def test_samples_are_a_table_to_compare_too(page, shown):
    url, number, _ = shown
    look(page, "tables", f"{url}{path(number)}&compareRunsMode=ARTIFACT", "Who are you?")
    page.get_by_text("eval/answers.json", exact=True).first.click()
    page.get_by_role("option", name="samples.json", exact=True).click()
    page.keyboard.press("Escape")
    page.get_by_text("Paris or light, said after 60 iterations.", exact=True).first.wait_for()
    page.screenshot(path="logs/browser/samples.png")
    text = " ".join(page.inner_text("body").split())
    assert "Table: eval/answers.json, samples.json" in text
    assert "Group by: prompt Compare: answer" in text
    assert "What is the capital of France?" in text
    assert "I am Ada, after 62.5 s." in text


def test_the_compare_page_has_figures_and_what_differs(page, shown):
    url, number, runs = shown
    listed = ",".join(f"%22{runs[variant]}%22" for variant in VARIANTS)
    address = f"{url}/#/compare-runs?runs=[{listed}]&experiments=[%22{number}%22]"
    text = look(page, "compare", address, "after/leak", "shown_mixed")
    assert "Comparing 4 Runs from 1 Experiment" in text
    assert "after/heldout_loss after/identity after/leak cost/iterations" in text
    assert "3.1 3.12 2.55 2.56 1 1 1 1 1 1 0 0.5" in text
    assert "train.deepspeed none zero2 none zero2" in text


def test_a_runs_page_describes_it_and_names_its_study(page, shown):
    url, number, runs = shown
    address = f"{url}/#/experiments/{number}/runs/{runs['mixed']}"
    text = look(page, "run", address, "Parent run", "Description")
    assert "A persona, alone or mixed with general conversations" in text
    assert "assistant (data-True)" in text
