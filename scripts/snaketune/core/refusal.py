"""What a server says when it refuses a request."""


def refusal(error: Exception) -> str:
    """Return a server's reason, wherever in its answer it puts it, or else the error's own words.

    Args:
        error: Of OpenAI's client.
    """
    body = getattr(error, "body", None)
    while isinstance(body, dict):
        body = next((body[key] for key in ("message", "detail", "error") if key in body), None)
    return str(body or error)
