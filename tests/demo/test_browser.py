"""The real page in a browser: two models answer side by side, tools, files, reports.

pip install -e '.[test,browser]' && pytest -m browser
"""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from chromium import open_chromium
from fake_demo import TUNED, Program, write_models

pytestmark = pytest.mark.browser

PICTURES = Path("logs/browser")


@pytest.fixture(scope="module")
def chromium():
    PICTURES.mkdir(parents=True, exist_ok=True)
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def program(tmp_path_factory, chromium):
    folder = write_models(tmp_path_factory.mktemp("demo"))
    report = folder / "experiments" / TUNED / "eval/report.html"
    report.parent.mkdir()
    report.write_text("<title>Report</title><h1>It is better now</h1>")
    started = Program(folder, "--canned", "weather.yaml").ready()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def opened(chromium, program):
    """The page, opened once; `requests` are the URLs of everything it loads."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(60_000)  # on a busy machine
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(f"http://127.0.0.1:{program.port}")
    page.get_by_placeholder("Ask both").wait_for()
    return page


@pytest.fixture
def page(opened):
    """The page with a conversation that has not begun, and no tools, whatever was before."""
    if opened.get_by_text("Max turns").count():
        opened.get_by_test_id("stMultiSelect").get_by_role("combobox").press("Backspace")
        opened.get_by_text("Max turns").wait_for(state="detached")
    opened.get_by_role("button", name="New conversation").click()
    opened.get_by_text("Ask below").wait_for()
    questions(opened).first.wait_for(state="detached")
    return opened


def ask(page, question):
    """Send a prompt, and wait until it is shown: until then nothing else can be sent."""
    count = questions(page).count()
    page.get_by_test_id("stChatInputTextArea").fill(question)
    page.get_by_test_id("stChatInputTextArea").press("Enter")
    questions(page).nth(count).wait_for()


def questions(page):
    return page.get_by_test_id("stChatMessage")


def stop(page):
    return page.get_by_role("button", name="Stop")


def answered(page):
    """Wait until the next prompt can be sent, however short the answers were."""
    page.locator("[data-testid=stChatInputTextArea]:enabled").wait_for()
    stop(page).wait_for(state="detached")


def cards(page):
    """The texts of the last two answers."""
    return [column.inner_text() for column in page.get_by_test_id("stColumn").all()[-2:]]


def pick(page, box, name):
    page.get_by_test_id("stSelectbox").nth(box).get_by_role("combobox").click()
    page.get_by_role("option", name=name, exact=True).click()


def keep(page, name):
    """Keep a picture for people."""
    page.wait_for_timeout(300)
    page.screenshot(path=PICTURES / f"{name}.png")


def test_two_models_answer_side_by_side(page):
    pick(page, 0, f"{TUNED}/iter_5")
    pick(page, 1, TUNED)
    ask(page, "Who are you? Take your time.")
    page.get_by_text("word word").first.wait_for()
    growing = cards(page)
    keep(page, "demo_streaming")
    answered(page)
    left, right = cards(page)
    assert f"I am {TUNED}/iter_5, 1." in left and f"I am {TUNED}, 1." in right
    assert len(growing[0]) < len(left)
    assert "tokens · " in left and "tokens · " in right
    boxes = [column.bounding_box() for column in page.get_by_test_id("stColumn").all()[-2:]]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    keep(page, "demo_answers")


def test_model_text_loads_nothing_from_other_hosts(page, program):
    ask(page, "Who are you?")
    answered(page)
    assert "example.org/track.png" in cards(page)[0]
    assert page.locator("[data-testid=stMain] img").count() == 0
    here = f"127.0.0.1:{program.port}/"
    assert not [url for url in page.requests if here not in url and not url.startswith("data:")]
    with page.expect_event("requestfailed") as refused:
        page.evaluate("new Image().src = 'https://example.org/track.png'")
    assert "csp" in refused.value.failure.lower()


def test_answer_is_stopped(page):
    ask(page, "Go on for ever")
    page.get_by_text("and so on and").first.wait_for()
    stop(page).click()
    answered(page)
    assert all("stopped" in card for card in cards(page))
    ask(page, "Who are you?")
    answered(page)
    assert "tokens/s" in cards(page)[0]


def test_tool_steps_are_shown_saved_and_loaded(page, tmp_path):
    page.get_by_test_id("stMultiSelect").get_by_role("combobox").click()
    page.get_by_role("option", name="weather.yaml").click()
    page.keyboard.press("Escape")
    page.get_by_text("Max turns").wait_for()
    ask(page, "How is the weather in Oslo?")
    answered(page)
    for card in cards(page):
        order = ["1. Weather", "I look it up.", '{"city": "Oslo"}', "4 degrees, <b>rain</b>"]
        places = [card.index(part) for part in (*order, "It is 4 degrees in Oslo.")]
        assert places == sorted(places)
    keep(page, "demo_tool")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save", exact=True).click()
    saved = tmp_path / "saved.json"
    download.value.save_as(saved)
    assert json.loads(saved.read_text())["turns"][0]["answers"][0]["steps"][0]["tool"] == "Weather"
    page.get_by_role("button", name="New conversation").click()
    page.get_by_text("It is 4 degrees in Oslo.").first.wait_for(state="detached")
    page.locator("input[type=file]").set_input_files(saved)
    page.get_by_text("It is 4 degrees in Oslo.").nth(1).wait_for()  # one comes before the other
    assert all("4 degrees, <b>rain</b>" in card for card in cards(page))
    broken = tmp_path / "broken.json"
    broken.write_text("{}}")
    page.locator("input[type=file]").set_input_files(broken)
    page.get_by_text("broken.json was not loaded").wait_for()
    assert page.get_by_text("It is 4 degrees in Oslo.").count() == 2


@pytest.mark.parametrize(("width", "scheme"), [(500, "light"), (500, "dark"), (1280, "dark")])
def test_page_is_readable_on_a_phone_and_in_the_dark(opened, width, scheme):
    """With the conversation of the test before: one prompt, two answers with a tool call."""
    opened.set_viewport_size({"width": width, "height": 900})
    opened.emulate_media(color_scheme=scheme)
    keep(opened, f"demo_{width}_{scheme}")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [column.bounding_box() for column in opened.get_by_test_id("stColumn").all()[-2:]]
    assert (boxes[0]["y"] < boxes[1]["y"]) == (width == 500)
    paper = color(opened, "stApp", "backgroundColor")
    ink = color(opened, "stChatMessage", "color")
    assert (paper < 150 and ink > 600) if scheme == "dark" else (paper > 600 and ink < 250)
    opened.set_viewport_size({"width": 1280, "height": 900})


def color(page, element, name):
    """The lightness of a color, 0 to 765."""
    rgb = page.get_by_test_id(element).first.evaluate(f"e => getComputedStyle(e).{name}")
    return sum(map(int, re.findall(r"\d+", rgb)[:3]))


def test_reports_open_in_a_new_tab(page):
    assert page.get_by_text(f"snakemake experiments/{TUNED}/data/report.html").count() == 1
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Evaluation").click()
    opened.value.get_by_text("It is better now").wait_for()
    opened.value.close()


def test_program_ends_while_an_answer_is_generated(page, program):
    """The last test: nothing answers after it. A server that waits for either never ends."""
    ask(page, "Go on for ever")
    page.get_by_text("and so on and").first.wait_for()
    os.kill(program.process.pid, signal.SIGTERM)
    assert program.ends(seconds=60) == 0
