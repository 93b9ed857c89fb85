"""Publish the files that a folder's manifest lists, and no others, after checking all of them."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import metadata_load

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, sha256, write_text
from snaketune.core.layout import MANIFEST
from snaketune.core.manifest import FileEntry, Manifest, require_intact
from snaketune.hub.repository import RemoteFile
from snaketune.publish.destination import Destination, PublishedFile
from snaketune.publish.openxlab_folder import require_own_folder, write_folder
from snaketune.publish.publish_config import PublishConfig, require_token
from snaketune.publish.publish_record import PublishRecord

log = logging.getLogger(__name__)

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json", "adapter_config.json")
_MIB = 2**20


def publish(folder: Path, config: PublishConfig, output: Path) -> None:
    """Upload a folder, or make one for OpenXLab.

    Args:
        folder: A merged model or an adapter, with its manifest.
        output: The `PublishRecord`, written last.

    Raises:
        UserError: The token is missing, the folder does not match its manifest, or the hub refuses
            or is unreachable. No record is written then, and the same call resumes.
    """
    started = time.monotonic()
    destination = _open_hub(config)
    files = files_to_publish(folder)
    licence = _licence(folder)
    entries = [FileEntry(name=f.name, sha256=f.sha256, bytes=f.bytes) for f in files]
    record = PublishRecord(to=config.to, what=config.what, files=entries)
    if destination is None:
        made = Path(config.name).expanduser()
        write_folder(made, files, licence)
        record = record.model_copy(update={"folder": str(made.absolute())})
    else:
        record = _upload(destination, files, config.private, licence, record)
    record.write(output)
    log.info("published in %.1f s: %s", time.monotonic() - started, record.page or record.folder)


def list_to_publish(folder: Path, config: PublishConfig, output: Path) -> None:
    """Write what `publish` would send and where. Needs neither token nor network.

    Raises:
        UserError: The folder does not match its manifest.
    """
    files = files_to_publish(folder)
    visibility = "" if config.scheme == "openxlab" else f", {_visibility(config.private)} if new"
    lines = [f"{folder} to {config.to}{visibility}"]
    lines += [f"{f.bytes:>14,} bytes  {f.sha256[:12]}  {f.name}" for f in files]
    total = sum(file.bytes for file in files)
    lines.append(f"{total:>14,} bytes in {len(files)} files; nothing was sent")
    for line in lines:
        log.info("%s", line)
    write_text(output, "\n".join(lines) + "\n")


def files_to_publish(folder: Path) -> list[PublishedFile]:
    """List the files of the manifest by size, the largest first, and the manifest itself last.

    Raises:
        UserError: The folder does not match its manifest.
    """
    require_intact(folder)
    entries = Manifest.of(folder).files
    files = [PublishedFile(e.name, folder / e.name, e.bytes, e.sha256) for e in entries]
    manifest = folder / MANIFEST
    files.sort(key=lambda file: (-file.bytes, file.name))
    _warn_of_local_base(folder / "adapter_config.json")
    # last, so that a hub that commits file by file has it only when the model is complete
    return [*files, PublishedFile(MANIFEST, manifest, manifest.stat().st_size, sha256(manifest))]


def _open_hub(config: PublishConfig) -> Destination | None:
    """Refuse a missing token or a foreign folder before any file is read; None for a folder."""
    if config.scheme == "openxlab":
        require_own_folder(Path(config.name).expanduser())
        return None
    token = require_token(config.scheme, os.environ)
    # each client takes a second to import, and one of them is needed
    if config.scheme == "hf":
        from snaketune.publish.huggingface_publisher import HuggingFacePublisher

        return HuggingFacePublisher(config.name, token)
    from snaketune.publish.modelscope_publisher import ModelScopePublisher

    return ModelScopePublisher(config.name, token)


def _upload(
    destination: Destination,
    files: Sequence[PublishedFile],
    private: bool,
    licence: str | None,
    record: PublishRecord,
) -> PublishRecord:
    """Send the files that the repository lacks, check all, and complete the record."""
    is_private = destination.open(private, licence)
    _refuse_exposure(destination, private, is_private)
    stored = destination.listing(files)
    _refuse_other_weights(destination, files, stored)
    missing = [
        file for file in files if stored.get(file.name) != RemoteFile(file.bytes, file.sha256)
    ]
    total = sum(file.bytes for file in missing) / _MIB
    log.info(
        "%s (%s): %d of %d files are already there; %d to send, %.1f MiB",
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
    where = {"page": destination.page, "revision": destination.revision(), "private": is_private}
    return record.model_copy(update=where)


def _refuse_exposure(destination: Destination, private: bool, is_private: bool) -> None:
    if private and not is_private:
        raise UserError(
            f"{destination.where} is public, but private=true is the default; nothing was sent.\n"
            "  Fix: add private=false after --config to publish it for everyone, or make the "
            f"repository private at {destination.page}/settings"
        )
    if is_private and not private:
        log.warning(
            "%s is private and remains so; change that at %s/settings",
            destination.where,
            destination.page,
        )


def _refuse_other_weights(
    destination: Destination, files: Sequence[PublishedFile], stored: Mapping[str, RemoteFile]
) -> None:
    """Refuse to add a model to another one: loaders would read the wrong weights, or both."""
    ours = {file.name for file in files}
    others = sorted(name for name in stored if name.endswith(_WEIGHTS) and name not in ours)
    if others:
        raise UserError(
            f"{destination.where} holds other weights: {', '.join(others[:5])}. Loading it "
            "would read those, or a mixture; nothing was sent.\n"
            f"  Fix: delete them at {destination.page}, or publish under another name."
        )


def _require_sent(destination: Destination, files: Sequence[PublishedFile]) -> None:
    stored = destination.listing(files)
    wrong = [file.name for file in files if not _equals(stored.get(file.name), file)]
    if wrong:
        raise UserError(
            f"{destination.where} does not hold what was sent: {', '.join(wrong[:5])}.\n"
            f"  Fix: check {destination.page} (a .gitignore there excludes files), then run the "
            "same command."
        )


def _equals(stored: RemoteFile | None, file: PublishedFile) -> bool:
    if stored is None or stored.bytes != file.bytes:
        return False
    return stored.sha256 in (None, file.sha256)


def _warn_of_local_base(config: Path) -> None:
    """Warn of an adapter that names its base by a path, which is useless on other machines."""
    base = read_json(config)["base_model_name_or_path"] if config.is_file() else ""
    if Path(base).is_absolute():
        log.warning(
            "%s names its base by a path on this machine (%s): others must load the adapter onto "
            "their own copy of the base; what=merged needs none",
            config,
            base,
        )


def _licence(folder: Path) -> str | None:
    """Read the licence in the model card's metadata, if there is one."""
    card = folder / "README.md"
    try:
        metadata = metadata_load(card) if card.is_file() else None
    except Exception as error:  # ValueError, or one of the YAML parser of huggingface_hub
        raise UserError(
            f"{card} does not begin with valid model card metadata: {error}\n"
            "  Fix: build the folder again, or correct the card and its manifest."
        ) from error
    licence = (metadata or {}).get("license")
    return str(licence) if licence else None


def _visibility(private: bool) -> str:
    return "private" if private else "public"
