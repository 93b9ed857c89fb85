"""The page's server: this machine's alone, nothing from elsewhere, reports as they are."""

import openai
import pytest
from starlette.testclient import TestClient

from fake_demo import BASE, TUNED
from snaketune.demo import app
from snaketune.demo.setup import Setup


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A client of the page's server, of which there can be one in a process."""
    folder = tmp_path_factory.mktemp("experiments")
    report = folder / TUNED / "eval/report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<h1>Better</h1>")
    (folder / "secret.html").write_text("secret")
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none")
    made = Setup(client, [TUNED, BASE], [BASE], [TUNED], experiments=folder)
    return TestClient(app.application(made), base_url="http://127.0.0.1:8501")


def test_policy_forbids_other_hosts(browser):
    policy = browser.get("/").headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'self'"
    assert rules["img-src"] == "'self' data: blob:"
    assert "http" not in policy and "*;" not in policy.replace(":*", "")


def test_report_is_sandboxed(browser):
    response = browser.get(f"/reports/{TUNED}/eval.html")
    assert (response.status_code, response.text) == (200, "<h1>Better</h1>")
    assert response.headers["content-security-policy"].endswith("sandbox")


@pytest.mark.parametrize(
    "path",
    [
        f"/reports/{TUNED}/data.html",
        f"/reports/{TUNED}/other.html",
        "/reports/other/eval.html",
        "/reports/../secret.html",
        "/reports/%2e%2e/secret.html",
        f"/reports/{TUNED}%2f..%2f../secret.html",
    ],
)
def test_other_files_are_not_served(browser, path):
    response = browser.get(path)
    assert response.text != "secret"
    assert (
        response.status_code in (400, 404) or '<div id="root">' in response.text
    )  # Streamlit's page


def test_other_host_names_are_refused(browser):
    assert browser.get("/", headers={"Host": "evil.example:8501"}).status_code == 400
