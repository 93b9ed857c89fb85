"""Checks of a request before a model sees it. transformers itself refuses unknown keys."""

import json
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveInt, ValidationError


class _Message(BaseModel):
    role: str
    content: str | list[dict[str, Any]] | None = None


class CompletionBody(BaseModel):
    """The values that would otherwise fail during generation."""

    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    temperature: NonNegativeFloat | None = None
    top_p: float | None = Field(None, ge=0, le=1)
    # the range that torch.manual_seed accepts
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None


class ChatBody(CompletionBody):
    """A request to /v1/chat/completions."""

    messages: list[_Message] = Field(min_length=1)


class TextBody(CompletionBody):
    """A request to /v1/completions."""

    prompt: str = Field(min_length=1)


def check_request(expected: type[CompletionBody], body: dict[str, Any]) -> None:
    """Validate a request's JSON.

    Raises:
        HTTPException: 422, with the key, the reason and the value.
    """
    try:
        # JSON may escape half a surrogate pair, which no tokenizer can encode as UTF-8
        json.dumps(body, ensure_ascii=False).encode()
        expected.model_validate(body)
    except UnicodeEncodeError as error:
        raise HTTPException(422, "the request contains half a character (a surrogate)") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        value = ascii(first["input"])[:80]
        raise HTTPException(422, f"{key}: {first['msg']}, found {value}") from error
