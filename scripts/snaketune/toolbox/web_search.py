"""Search on arXiv and, through Serper, on Google.

Lagent's ArxivSearch calls `Search.results`, which arxiv 4 has no more; its GoogleSearch reads
`self.k`, which nothing sets, wherever an answer has no answer box, and reports an error of the
server as a bare number.
"""

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from snaketune.core.errors import UserError

KEY = "SERPER_API_KEY"
SERPER_URL = "https://google.serper.dev/search"
ARXIV_URL = "https://export.arxiv.org/api/query?{}"
SECONDS = 10.0
"""How long a server may be silent."""
_FOUND, _QUERY, _SUMMARY = 3, 300, 1500
"""arXiv: articles, and characters of the question and of each summary, as Lagent has them."""
_RESULTS = 5


def arxiv_articles(query: str) -> str:
    """Date, title, authors and summary of the three articles that arXiv ranks first.

    Raises:
        ValueError: arXiv did not answer.
    """
    import arxiv
    import requests

    client = arxiv.Client(page_size=_FOUND, num_retries=0)
    client.query_url_format = ARXIV_URL
    client._session.get = partial(client._session.get, timeout=SECONDS)  # it has no timeout
    try:
        found = list(client.results(arxiv.Search(query[:_QUERY], max_results=_FOUND)))
    except (arxiv.ArxivError, requests.RequestException) as error:
        raise ValueError(f"arXiv did not answer ({type(error).__name__}: {error})") from error
    return "\n\n".join(_article(article) for article in found) or "No good Arxiv Result was found"


def google_snippets(query: str) -> str:
    """The texts of Google's first results, by Serper, one on each line.

    Raises:
        ValueError: Serper did not answer, or not with results.
    """
    return "\n".join(google_results(query)[:_RESULTS]) or "No good Google Search Result"


def google_results(query: str) -> list[str]:
    """The texts of Google's first results: the answer box alone if there is one.

    Raises:
        ValueError: Serper did not answer, or not with results.
    """
    import requests  # the schema imports this package: no network library with it

    headers = {"X-API-KEY": serper_key()}
    try:
        answer = requests.post(
            SERPER_URL,
            json={"q": query},
            headers=headers,
            timeout=SECONDS,
            allow_redirects=False,  # the key goes nowhere else
        )
    except requests.RequestException as error:
        raise ValueError(f"Serper did not answer ({type(error).__name__})") from error
    if answer.status_code != requests.codes.ok:
        raise ValueError(f"Serper refused the search: HTTP {answer.status_code}")
    try:
        found = _snippets(answer.json())
        if not all(isinstance(text, str) for text in found):
            raise TypeError
        return found
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError("Serper's answer is not in the form it documents") from error


def serper_key() -> str:
    """Serper's key, from the environment.

    Raises:
        UserError: It is not set.
    """
    if key := os.environ.get(KEY, "").strip():
        return key
    raise UserError(
        f"Google search requires an API key of Serper, but {KEY} is not set.\n"
        f"  Fix: get one at https://serper.dev and export {KEY}=..., or remove the tool"
    )


def _article(found: Any) -> str:
    authors = ", ".join(author.name for author in found.authors)
    date = found.updated.date()
    summary = found.summary[:_SUMMARY]
    return f"Published: {date}\nTitle: {found.title}\nAuthors: {authors}\nSummary: {summary}"


def _snippets(found: dict[str, Any]) -> list[str]:
    """The answer itself if Google has one, else the texts of knowledge graph and pages."""
    box = found.get("answerBox") or {}
    if answer := box.get("answer") or box.get("snippet"):
        return [answer]
    return [*_graph(found.get("knowledgeGraph") or {}), *_pages(found.get("organic") or [])]


def _graph(graph: dict[str, Any]) -> Iterator[str]:
    title = graph.get("title", "")
    for text in (graph.get("type"), graph.get("description")):
        if text:
            yield f"{title}: {text}"
    for key, value in (graph.get("attributes") or {}).items():
        yield f"{title}, {key}: {value}"


def _pages(pages: list[dict[str, Any]]) -> Iterator[str]:
    yield from (
        f"{page.get('title', '')}: {page['snippet']}" for page in pages if "snippet" in page
    )
