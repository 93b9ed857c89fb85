"""What `--config to=... what=... private=...` requests. The Snakefile reads it: no hub library."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from snaketune.core.errors import UserError, nearest
from snaketune.core.layout import EXPERIMENTS, ITERATION, ExperimentPaths
from snaketune.experiment.studies import Studies
from snaketune.experiment.targets import explain_unknown

KEYS = ("to", "what", "private")
FOLDERS = ("merged", "adapter")
TOKENS = {"hf": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}
"""The environment variable that holds each hub's access token."""

_TARGET = re.compile(
    rf"(\./)*{EXPERIMENTS}/(?P<name>[^/]+)/(?P<at>{ITERATION.pattern}/)?(published|to_publish\.txt)"
)
_REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
# what the Hugging Face hub accepts for ORG/NAME
_MAX_NAME_LENGTH = 96
_EXAMPLE = f"snakemake {ExperimentPaths('X').folder}/published --config to=hf:ORG/NAME"


@dataclass(frozen=True)
class PublishConfig:
    """Where to publish: `name` is ORG/NAME on a hub, or the folder to make for OpenXLab."""

    scheme: str
    name: str
    what: str = "merged"
    private: bool = True

    @property
    def to(self) -> str:
        """The destination as it was written."""
        return f"{self.scheme}:{self.name}"


def read_publish_config(config: Mapping[str, object]) -> PublishConfig:
    """Check Snakemake's `config`.

    Raises:
        UserError: `to` is missing or invalid, or a key or value is unknown.
    """
    for key in config:
        if key not in KEYS:
            raise UserError(
                f"publishing has no setting '{key}'.{nearest(key, KEYS)}\n"
                f"  Fix: use {', '.join(KEYS)} after --config."
            )
    what, private = str(config.get("what", "merged")), str(config.get("private", True)).lower()
    if what not in FOLDERS:
        raise UserError(
            f"what={what} cannot be published.\n  Fix: what=merged (the default) or what=adapter."
        )
    # Snakemake parses `False` as a boolean but keeps `false` as a string
    if private not in ("true", "false"):
        raise UserError(
            f"private={private} is neither true nor false.\n"
            "  Fix: private=true (the default) or private=false."
        )
    scheme, name = read_destination(config.get("to"))
    return PublishConfig(scheme, name, what, private == "true")


def read_destination(to: object) -> tuple[str, str]:
    """Split `hf:ORG/NAME`, `modelscope:ORG/NAME` or `openxlab:FOLDER` at its colon.

    Raises:
        UserError: It is none of these.
    """
    if not to:
        raise UserError(f"no destination specified.\n  Fix: name it, e.g. {_EXAMPLE}")
    scheme, _, name = str(to).partition(":")
    if scheme == "openxlab" and name:
        return scheme, name
    if scheme in TOKENS and _REPOSITORY.fullmatch(name) and len(name) <= _MAX_NAME_LENGTH:
        return scheme, name
    raise UserError(
        f"invalid destination to={to}.\n"
        "  Fix: to=hf:ORG/NAME, to=modelscope:ORG/NAME, or to=openxlab:FOLDER for a folder on "
        "this machine.\n  ORG and NAME consist of letters, digits, '_', '-' and '.', without '--' "
        f"or '..', and have at most {_MAX_NAME_LENGTH} characters together."
    )


def explain_publish_target(
    target: str, studies: Studies, config: Mapping[str, object]
) -> str | None:
    """Explain why a target that publishes cannot be built; None for one that can, and others."""
    match = _TARGET.fullmatch(target)
    if not match:
        return None
    try:
        what = read_publish_config(config).what
    except UserError as error:
        return str(error)
    folder = ExperimentPaths(match["name"]).folder
    return explain_unknown(f"{folder}/{match['at'] or ''}{what}", studies)


def require_token(scheme: str, environment: Mapping[str, str]) -> str:
    """Read a hub's access token from the environment, and from nowhere else.

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
            f"publishing to {scheme}: requires an access token, but {variable} is not set.\n"
            f"  Fix: create a token with write access on the hub's settings page, then: "
            f"export {variable}=..."
        )
    return token
