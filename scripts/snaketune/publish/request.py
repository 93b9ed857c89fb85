"""What `--config to=... what=... private=...` asks for. The Snakefile reads it: no hub library."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snaketune.core.errors import UserError, nearest
from snaketune.experiment import Studies
from snaketune.experiment.targets import explain_unknown

KEYS = ("to", "what", "private")
FOLDERS = ("merged", "adapter")
TOKENS = {"hf": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}
"""The environment variable that holds each hub's access token."""

_TARGET = re.compile(
    r"(\./)*experiments/(?P<name>[^/]+)/(?P<at>iter_[1-9]\d*/)?(published|to_publish\.txt)"
)
_REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LONGEST = 96  # characters of ORG/NAME, as the Hugging Face hub takes them
_EXAMPLE = "snakemake experiments/X/published --config to=hf:ORG/NAME"


@dataclass(frozen=True)
class Request:
    """Where to publish: `name` is ORG/NAME on a hub, or the folder to make for OpenXLab."""

    scheme: str
    name: str
    what: str = "merged"
    private: bool = True

    @property
    def to(self) -> str:
        """The destination as it was written."""
        return f"{self.scheme}:{self.name}"


def read_request(config: Mapping[str, Any]) -> Request:
    """Check Snakemake's `config` and return what it asks for.

    Raises:
        UserError: `to` is missing or names no place, or a key or value is not known.
    """
    for key in config:
        if key not in KEYS:
            raise UserError(
                f"publishing has no setting '{key}'.{nearest(key, KEYS)}\n"
                f"  Fix: use {', '.join(KEYS)} after --config."
            )
    what, private = config.get("what", "merged"), str(config.get("private", True)).lower()
    if what not in FOLDERS:
        raise UserError(
            f"what={what} cannot be published.\n  Fix: what=merged (the default) or what=adapter."
        )
    if private not in ("true", "false"):  # Snakemake leaves `false` a word, and reads `False`
        raise UserError(
            f"private={private} is neither true nor false.\n"
            "  Fix: private=true (the default) or private=false."
        )
    scheme, name = read_destination(config.get("to"))
    return Request(scheme, name, what, private == "true")


def read_destination(to: object) -> tuple[str, str]:
    """Split `hf:ORG/NAME`, `modelscope:ORG/NAME` or `openxlab:FOLDER` at its colon.

    Raises:
        UserError: It is none of these.
    """
    if not to:
        raise UserError(f"nothing says where to publish.\n  Fix: name it, e.g. {_EXAMPLE}")
    scheme, _, name = str(to).partition(":")
    if scheme == "openxlab" and name:
        return scheme, name
    if scheme in TOKENS and _REPOSITORY.fullmatch(name) and len(name) <= _LONGEST:
        return scheme, name
    raise UserError(
        f"to={to} names no place to publish to.\n"
        "  Fix: to=hf:ORG/NAME, to=modelscope:ORG/NAME, or to=openxlab:FOLDER for a folder on "
        f"this machine.\n  ORG and NAME are letters, digits, '_', '-' and '.', without '--' or "
        f"'..', at most {_LONGEST} characters in all."
    )


def explain(target: str, studies: Studies, config: Mapping[str, Any]) -> str | None:
    """Return why a target that publishes cannot be built, or None if it can or is another."""
    match = _TARGET.fullmatch(target)
    if not match:
        return None
    try:
        what = read_request(config).what
    except UserError as error:
        return str(error)
    return explain_unknown(f"experiments/{match['name']}/{match['at'] or ''}{what}", studies)


def require_token(scheme: str, environment: Mapping[str, str]) -> str:
    """Return a hub's access token; no other place than the environment is looked at.

    A folder for OpenXLab needs none: an empty string.

    Raises:
        UserError: The variable is not set.
    """
    if scheme not in TOKENS:
        return ""
    variable = TOKENS[scheme]
    token = environment.get(variable, "").strip()
    if not token:
        raise UserError(
            f"publishing to {scheme}: needs an access token, and {variable} is not set.\n"
            f"  Fix: make a token that may write on the hub's settings page, then: "
            f"export {variable}=..."
        )
    return token
