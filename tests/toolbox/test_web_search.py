"""Search against servers that answer as arXiv and Serper do, or do not."""

import contextlib
import json
import logging
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from snaketune.toolbox import web_search
from snaketune.toolbox.web_search import arxiv_articles, google_snippets
from stand_in import Replies, Server

KEY = "sErPeRkEy"

ENTRY = """
<entry>
  <id>http://arxiv.org/abs/2501.0000{number}v2</id>
  <title>Paper {number}</title>
  <updated>2025-01-0{number}T10:00:00Z</updated>
  <published>2024-01-01T10:00:00Z</published>
  <summary>{summary}</summary>
  <author><name>Ada L.</name></author><author><name>Grace H.</name></author>
  <link href="http://arxiv.org/abs/2501.0000{number}v2" rel="alternate" type="text/html"/>
  <arxiv:primary_category xmlns:arxiv="http://arxiv.org/schemas/atom" term="cs.AI"/>
  <category term="cs.AI"/>
</entry>"""

FEED = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"
 xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">
<title>results</title><id>x</id><updated>2025-01-01T00:00:00Z</updated>
<opensearch:totalResults>{total}</opensearch:totalResults>
<opensearch:startIndex>0</opensearch:startIndex>
<opensearch:itemsPerPage>3</opensearch:itemsPerPage>{entries}</feed>"""


class Site(Server):
    """Answers every request with `status` and `text`, once it may."""

    def __init__(self):
        super().__init__(Routes)
        self.status, self.text, self.headers = 200, "", {}
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.seen = []


class Routes(Replies):
    server: Site

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers), self.body()))
        self.server.may_answer.wait(60)
        headers = {"Content-Type": "text/plain"} | self.server.headers
        with contextlib.suppress(OSError):  # the client gave up
            self.reply(self.server.status, self.server.text.encode(), headers)

    do_POST = do_GET


@pytest.fixture
def site(monkeypatch):
    with Site().running() as running:
        monkeypatch.setattr(web_search, "ARXIV_URL", running.url + "/api/query?{}")
        monkeypatch.setattr(web_search, "SERPER_URL", running.url + "/search")
        monkeypatch.setenv("SERPER_API_KEY", KEY)
        yield running


def feed(count, summary="Short."):
    entries = "".join(ENTRY.format(number=n, summary=summary) for n in range(1, count + 1))
    return FEED.format(total=count, entries=entries)


def test_articles_are_told_as_lagent_does(site):
    site.text = feed(2)
    assert arxiv_articles("q" * 400) == (
        "Published: 2025-01-01\nTitle: Paper 1\nAuthors: Ada L., Grace H.\nSummary: Short.\n\n"
        "Published: 2025-01-02\nTitle: Paper 2\nAuthors: Ada L., Grace H.\nSummary: Short."
    )
    asked = parse_qs(urlsplit(site.seen[0][0]).query)
    assert (asked["search_query"], asked["max_results"]) == (["q" * 300], ["3"])


def test_three_articles_with_short_summaries_are_enough(site):
    site.text = feed(5, "s" * 5000)
    found = arxiv_articles("x")
    assert found.count("Published:") == 3
    assert "Summary: " + "s" * 1500 + "\n\nPublished" in found
    assert len(site.seen) == 1


def test_nothing_found_is_told(site):
    site.text = feed(0)
    assert arxiv_articles("x") == "No good Arxiv Result was found"


@pytest.mark.parametrize("search_for", [arxiv_articles, google_snippets])
def test_a_server_that_fails_is_told(site, search_for):
    site.status, site.text = 503, "busy"
    with pytest.raises(ValueError, match="503"):
        search_for("x")


@pytest.mark.parametrize("search_for", [arxiv_articles, google_snippets])
def test_a_silent_server_is_given_up(site, search_for, monkeypatch):
    monkeypatch.setattr(web_search, "SECONDS", 0.2)
    site.may_answer.clear()
    with pytest.raises(ValueError, match="did not answer"):
        search_for("x")
    site.may_answer.set()


@pytest.mark.parametrize("search_for", [arxiv_articles, google_snippets])
def test_no_server_is_told(monkeypatch, search_for):
    monkeypatch.setenv("SERPER_API_KEY", KEY)
    monkeypatch.setattr(web_search, "ARXIV_URL", "http://127.0.0.1:1/api/query?{}")
    monkeypatch.setattr(web_search, "SERPER_URL", "http://127.0.0.1:1/search")
    with pytest.raises(ValueError, match="did not answer"):
        search_for("x")


def test_arxiv_is_asked_over_https():
    assert web_search.ARXIV_URL.startswith("https://")
    assert web_search.SERPER_URL.startswith("https://")


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"answerBox": {"answer": "Paris"}, "organic": [{"snippet": "x"}]}, "Paris"),
        ({"answerBox": {"snippet": "It is Paris."}}, "It is Paris."),
        (
            {
                "knowledgeGraph": {
                    "title": "Paris",
                    "type": "City",
                    "description": "On the Seine.",
                    "attributes": {"Area": "105 km2"},
                },
                "organic": [{"title": "A", "snippet": "one"}, {"title": "B"}],
            },
            "Paris: City\nParis: On the Seine.\nParis, Area: 105 km2\nA: one",
        ),
        ({"organic": [{"title": str(n), "snippet": "s"} for n in range(9)]}, None),
        ({"organic": []}, "No good Google Search Result"),
        ({}, "No good Google Search Result"),
    ],
)
def test_the_answer_or_short_texts_are_told(site, found, told):
    site.text = json.dumps(found)
    expected = "\n".join(f"{n}: s" for n in range(5)) if told is None else told
    assert google_snippets("capital of France") == expected
    path, headers, body = site.seen[0]
    assert (path, json.loads(body)) == ("/search", {"q": "capital of France"})
    assert headers["X-API-KEY"] == KEY


def test_a_recorded_answer_of_serper_is_told(site, repository):
    file = repository.parent / "shared/data/agent/serper_search_answer.json"
    if not file.exists():
        pytest.skip("no recorded answer beside the repository")
    site.text = file.read_text()
    assert google_snippets("x") == json.loads(file.read_text())["answerBox"]["answer"]


@pytest.mark.parametrize("text", ["<html>", "[]", '{"organic": 5}', '{"answerBox": [1]}', "null"])
def test_an_answer_in_another_form_is_told(site, text):
    site.text = text
    with pytest.raises(ValueError, match="not in the form"):
        google_snippets("x")


def test_a_redirect_is_not_followed_with_the_key(site):
    site.status, site.headers = 302, {"Location": "/elsewhere"}
    with pytest.raises(ValueError, match="302"):
        google_snippets("x")
    assert [path for path, _, _ in site.seen] == ["/search"]


def test_key_is_not_leaked(site, caplog):
    caplog.set_level(logging.DEBUG)
    site.status, site.text = 403, f"bad key {KEY}"
    with pytest.raises(ValueError, match=r"^Serper refused the search: HTTP 403$"):
        google_snippets("x")
    assert KEY not in caplog.text
