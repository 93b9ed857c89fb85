"""The HTTP server of our models: /v1/chat/completions, /v1/completions, /v1/models.

Handlers, streaming and OpenAI's formats are transformers' own (transformers_adapter.py).
"""

import contextlib
import socket

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from jinja2 import TemplateError
from starlette.middleware.trustedhost import TrustedHostMiddleware

from snaketune.core.errors import UserError
from snaketune.serving.served_models import ServedModels
from snaketune.serving.transformers_adapter import build_app

STOP_SECONDS = 2


def serve(models: ServedModels, listening: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM.

    Args:
        listening: A socket of 127.0.0.1.
    """
    config = uvicorn.Config(
        application(models), log_level="warning", timeout_graceful_shutdown=STOP_SECONDS
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def application(models: ServedModels) -> FastAPI:
    """Build the application: transformers' routes, our error messages."""
    app = build_app(models)
    # a web page could have its own name resolve to 127.0.0.1 (DNS rebinding); its Host betrays it
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(TemplateError, _refuse_by_template)
    app.add_exception_handler(Exception, _fail)
    return app


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """Report an error in OpenAI's format, so that its clients show the message."""
    assert isinstance(error, HTTPException)
    body = {"message": error.detail, "type": "invalid_request_error", "code": error.status_code}
    return JSONResponse({"error": body}, status_code=error.status_code)


async def _refuse_by_template(request: Request, error: Exception) -> JSONResponse:
    message = f"the model's chat template rejects these messages: {error}"
    return await _refuse(request, HTTPException(400, message))


async def _fail(request: Request, error: Exception) -> JSONResponse:
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return await _refuse(request, HTTPException(500, f"{kind}{error}"))
