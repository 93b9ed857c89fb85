"""Publish a folder as its manifest lists it: nothing else is sent, and all of it is checked."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, sha256, write_text
from snaketune.core.layout import MANIFEST
from snaketune.core.manifest import FileEntry, Manifest, require_intact
from snaketune.hub.repository import Listed
from snaketune.publish.destination import Destination, File
from snaketune.publish.openxlab import refuse_others_folder, write_folder
from snaketune.publish.publish_record import PublishRecord
from snaketune.publish.request import Request, require_token

log = logging.getLogger(__name__)

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json", "adapter_config.json")
_MIB = 2**20


def publish(folder: Path, request: Request, record: Path) -> None:
    """Upload a folder, or make one for OpenXLab, and write down what is there now.

    Args:
        folder: A merged model or an adapter, with its manifest.
        request: Where to, and whether a repository that is made is private.
        record: JSON, written last: where, revision, and the files with their SHA-256.

    Raises:
        UserError: There is no token; the folder is not as its manifest says; the hub refuses or
            is out of reach. There is no record then, and the same call goes on.
    """
    began, made = time.monotonic(), Path(request.name).expanduser()
    destination = _opened(request)
    files = files_to_publish(folder)
    licence = _licence(folder)
    if destination is None:
        write_folder(made, files, licence)
        told: dict[str, Any] = {"folder": str(made.absolute())}
    else:
        told = _upload(destination, files, request.private, licence)
    listed = [FileEntry(name=f.name, sha256=f.sha256, bytes=f.bytes) for f in files]
    PublishRecord(to=request.to, what=request.what, files=listed, **told).write(record)
    log.info("published in %.1f s: %s", time.monotonic() - began, told.get("page") or made)


def list_to_publish(folder: Path, request: Request, output: Path) -> None:
    """Write what `publish` would send and where to, without a token and without a network.

    Raises:
        UserError: The folder is not as its manifest says.
    """
    files = files_to_publish(folder)
    visibility = "" if request.scheme == "openxlab" else f", {_visibility(request.private)} if new"
    lines = [f"{folder} to {request.to}{visibility}"]
    lines += [f"{f.bytes:>14,} bytes  {f.sha256[:12]}  {f.name}" for f in files]
    total = sum(file.bytes for file in files)
    lines.append(f"{total:>14,} bytes in {len(files)} files; nothing was sent")
    for line in lines:
        log.info("%s", line)
    write_text(output, "\n".join(lines) + "\n")


def files_to_publish(folder: Path) -> list[File]:
    """Return the files that the manifest lists and the manifest, the largest first, it last.

    Raises:
        UserError: There is no manifest, or a file is missing, changed, or not in it.
    """
    require_intact(folder)
    entries = Manifest.of(folder).files
    files = [File(e.name, folder / e.name, e.bytes, e.sha256) for e in entries]
    manifest = folder / MANIFEST
    files.sort(key=lambda file: (-file.bytes, file.name))
    _warn_of_local_base(folder / "adapter_config.json")
    return [*files, File(MANIFEST, manifest, manifest.stat().st_size, sha256(manifest))]


def _opened(request: Request) -> Destination | None:
    """Return the hub with its token, before anything is read; None for a folder."""
    if request.scheme == "openxlab":
        refuse_others_folder(Path(request.name).expanduser())
        return None
    token = require_token(request.scheme, os.environ)
    if request.scheme == "hf":
        from snaketune.publish.huggingface import HuggingFace

        return HuggingFace(request.name, token)
    from snaketune.publish.modelscope import ModelScope

    return ModelScope(request.name, token)


def _upload(
    destination: Destination, files: Sequence[File], private: bool, licence: str | None
) -> dict[str, Any]:
    """Send what is not there, check that all is, and return what to write down about it."""
    is_private = destination.open(private, licence)
    _refuse_exposure(destination, private, is_private)
    there = destination.listing(files)
    _refuse_other_weights(destination, files, there)
    missing = [file for file in files if there.get(file.name) != Listed(file.bytes, file.sha256)]
    total = sum(file.bytes for file in missing) / _MIB
    log.info(
        "%s (%s): %d of %d files are there; %d to send, %.1f MiB",
        destination.where,
        _visibility(is_private),
        len(files) - len(missing),
        len(files),
        len(missing),
        total,
    )
    if missing:
        destination.send(missing)
        _require_sent(destination, files)
    return {
        "page": destination.page,
        "revision": destination.revision(),
        "private": is_private,
    }


def _refuse_exposure(destination: Destination, private: bool, is_private: bool) -> None:
    if private and not is_private:
        raise UserError(
            f"{destination.where} is public, and private=true is the default; nothing was sent.\n"
            "  Fix: add private=false after --config to publish for everyone, or make the "
            f"repository private at {destination.page}/settings"
        )
    if is_private and not private:
        log.warning(
            "%s was made private and stays so; %s/settings changes it",
            destination.where,
            destination.page,
        )


def _refuse_other_weights(
    destination: Destination, files: Sequence[File], there: Mapping[str, Listed]
) -> None:
    """Refuse to add a model to another one: loaders would take the wrong weights, or both."""
    ours = {file.name for file in files}
    others = sorted(name for name in there if name.endswith(_WEIGHTS) and name not in ours)
    if others:
        raise UserError(
            f"{destination.where} holds other weights: {', '.join(others[:5])}. Who loads it would "
            "get those, or a mixture; nothing was sent.\n"
            f"  Fix: delete them at {destination.page}, or publish under another name."
        )


def _require_sent(destination: Destination, files: Sequence[File]) -> None:
    there = destination.listing(files)
    wrong = [file.name for file in files if not _is_there(file, there.get(file.name))]
    if wrong:
        raise UserError(
            f"{destination.where} does not hold what was sent: {', '.join(wrong[:5])}.\n"
            f"  Fix: look at {destination.page} (a .gitignore there leaves files out), then run "
            "the same command."
        )


def _is_there(file: File, listed: Listed | None) -> bool:
    return (
        listed is not None and listed.bytes == file.bytes and listed.sha256 in (None, file.sha256)
    )


def _warn_of_local_base(config: Path) -> None:
    """Say that an adapter names its base by a path, which is of no use elsewhere."""
    base = read_json(config)["base_model_name_or_path"] if config.is_file() else ""
    if Path(base).is_absolute():
        log.warning(
            "%s names its base by a path on this machine (%s): others must load the adapter on "
            "their own copy; what=merged needs none",
            config,
            base,
        )


def _licence(folder: Path) -> str | None:
    """Return the licence that the model card names."""
    card = folder / "README.md"
    try:
        metadata = metadata_load(card) if card.is_file() else None
    except Exception as error:  # ValueError, or of the YAML parser that the library uses
        raise UserError(
            f"the head of {card} is not what a model card begins with: {error}\n"
            "  Fix: build the folder again, or correct the card and its manifest."
        ) from error
    licence = (metadata or {}).get("license")
    return str(licence) if licence else None


def _visibility(private: bool) -> str:
    return "private" if private else "public"
