"""The web server: Streamlit's page and the reports, on 127.0.0.1 and without other hosts."""

import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from snaketune.demo import setup as shared
from snaketune.demo.reports import REPORTS, report_file
from snaketune.demo.setup import Setup

HOSTS = ["127.0.0.1", "localhost"]
"""Any other Host header is another site that a browser was tricked into reaching here (DNS
rebinding)."""

_OPTIONS = {
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "logger.hideWelcomeMessage": True,
    "logger.level": "warning",
    "server.address": "127.0.0.1",
    "server.allowedHosts": HOSTS,
    "server.enableAgentApi": False,
    "server.enableStaticServing": False,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.maxUploadSize": 5,
    "theme.light.primaryColor": "#2563eb",
    "theme.dark.primaryColor": "#7aa7ff",
}
"""They override a user's own config.toml."""

# Streamlit needs inline scripts and styles and WebAssembly; connect-src is its websocket
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; connect-src 'self' ws://127.0.0.1:* ws://localhost:*; "
    "frame-src 'none'; object-src 'none'; form-action 'none'; frame-ancestors 'none'"
)
# a report is one file with its styles and pictures inside, and needs no script
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"


def serve(setup: Setup, port: int, ready: Callable[[], None]) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C, SIGTERM or SIGHUP.

    Args:
        ready: Called once, when the page can be opened.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    with contextlib.suppress(KeyboardInterrupt):
        application(setup, ready).run(config=_OPTIONS | {"server.port": port})


def _stop(*_: object) -> None:
    """End as Ctrl-C does.

    uvicorn, which handles SIGTERM itself, sends the signal again when it has shut down.
    """
    signal.raise_signal(signal.SIGINT)


def application(setup: Setup, ready: Callable[[], None] = lambda: None) -> Any:
    """Build the ASGI application of the page and the reports."""
    import streamlit
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def report(request: Request) -> Response:
        experiment, kind = request.path_params["experiment"], request.path_params["kind"]
        # no path is built of anything but known names
        known = experiment in {name.partition("/")[0] for name in setup.models} and kind in REPORTS
        file = report_file(experiment, kind, setup.experiments) if known else None
        if not file or not file.exists():
            return PlainTextResponse("no such report", status_code=404)
        return FileResponse(file, headers={"Content-Security-Policy": REPORT_POLICY})

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        ready()  # the port is open by now, and requests wait
        yield

    shared.use(setup)
    return streamlit.App(
        Path(__file__).with_name("streamlit_main.py"),
        lifespan=lifespan,
        routes=[Route("/reports/{experiment}/{kind}.html", report)],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),
            Middleware(_Policy),
        ],
    )


class _Policy:
    """Adds the page's Content-Security-Policy to every response without one."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                names = {name.lower() for name, _ in headers}
                if b"content-security-policy" not in names:
                    headers.append((b"content-security-policy", PAGE_POLICY.encode()))
                headers.append((b"referrer-policy", b"no-referrer"))
                message["headers"] = headers
            await send(message)

        await self.app(scope, receive, send_with_policy)
