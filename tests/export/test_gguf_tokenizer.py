"""The tokens llama.cpp makes of a text against those of the tokenizer the GGUF was made of."""

import io
import json
import shutil
from pathlib import Path

import gguf
import pytest
import sentencepiece
from tokenizers import Tokenizer

from snaketune.bases.spm import read_tokenizer
from snaketune.core.errors import UserError
from snaketune.export.gguf_tokenizer import add_tokenizer

ROWS = 3000
TEXTS = [
    "Hello world",
    " leading, trailing ",
    "two  spaces   three\ttab \n newline\n\n\nblank lines  \n",
    "1 12 123 1234 3.14 ½ ² ١٢٣",
    "I'm you're IT'S we'll'd 'tis",
    "naïve café Straße žluťoučký",
    "你好，请介绍一下你自己。 日本語 한국어",
    "🦙🦙 👩\u200d💻 ✅",
    "def f(x):\n    return x**2  # {'a': [1, 2]}\r\n",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|not_special|> </s><s>[INST] x [/INST]",
    "Привет мир العربية हिन्दी",
    "!!!???... ---===~~~",
    "a",
    " ",
]
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
BYTES = GPT2 | {"use_regex": False}


def split(pattern: str) -> dict:
    cut = {"pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Split"} | cut


def sequence(*steps: dict) -> dict:
    return {"type": "Sequence", "pretokenizers": list(steps)}


BYTE_LEVEL = ("smollm", "gpt-2", "llama-bpe", "smaug-bpe", "qwen2")


@pytest.fixture
def rules(bases):
    """What tokenizer.json says of each of BYTE_LEVEL."""
    llama3 = json.loads((bases["llama3"] / "tokenizer.json").read_text())["pre_tokenizer"]
    single_digits = json.loads(json.dumps(llama3).replace("{1,3}", ""))
    return {
        "smollm": {"pre_tokenizer": sequence(DIGITS, GPT2)},
        "gpt-2": {"pre_tokenizer": GPT2},
        "llama-bpe": {"pre_tokenizer": llama3, "model": {"ignore_merges": True}},
        "smaug-bpe": {"pre_tokenizer": llama3},
        "qwen2": {"pre_tokenizer": single_digits, "normalizer": {"type": "NFC"}},
    }


@pytest.fixture
def folder(bases, tmp_path):
    """A merged model's folder without weights, of a byte-level tokenizer as GPT-2's."""
    folder = shutil.copytree(bases["chatml"], tmp_path / "merged")
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    return folder


@pytest.fixture(scope="session")
def make_sentencepiece(repository, tmp_path_factory):
    """Return a function that trains a SentencePiece model and writes its tokenizer's folder."""
    rows = (repository / "experiments/data/general.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(row)["text"] for row in rows]

    def make(**options) -> Path:
        folder, model = tmp_path_factory.mktemp("sentencepiece"), io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=2000,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            minloglevel=2,
            **options,
        )
        (folder / "tokenizer.model").write_bytes(model.getvalue())
        read_tokenizer(folder / "tokenizer.model", {}).save_pretrained(folder)
        (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
        return folder

    return make


@pytest.fixture(scope="session")
def llama2(make_sentencepiece):
    """A folder with a tokenizer as Llama 2's: a space before a text and after special tokens."""
    return make_sentencepiece(add_dummy_prefix=True)


@pytest.fixture(scope="session")
def internlm2(make_sentencepiece):
    """A folder with a tokenizer as InternLM2's: no such space, and pieces that stay whole."""
    return make_sentencepiece(add_dummy_prefix=False, user_defined_symbols=["[INST]", "<|im_end|>"])


def edit(folder: Path, **values) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"] |= values.pop("model", {})
    path.write_text(json.dumps(content | values))


def written(folder: Path, rows: int = ROWS) -> Path:
    """Write a GGUF with the tokenizer alone."""
    path = folder / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    add_tokenizer(writer, folder, rows)
    for name in ("context_length", "embedding_length", "block_count", "feed_forward_length"):
        getattr(writer, f"add_{name}")(64)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def fields(path: Path) -> dict:
    found = gguf.GGUFReader(path).fields.items()
    return {name.removeprefix("tokenizer.ggml."): field.contents() for name, field in found}


def require_same_tokens(folder: Path) -> None:
    """Compare llama.cpp's tokens of all texts with the tokenizer's."""
    llama_cpp = pytest.importorskip("llama_cpp")
    llm = llama_cpp.Llama(str(written(folder)), vocab_only=True, verbose=False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in [*TEXTS, "".join(TEXTS)]:
        found = llm.tokenize(text.encode(), add_bos=True, special=True)
        assert found == tokenizer.encode(text).ids, text


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_a_byte_level_tokenizer_is_named_by_its_rules(folder, rules, name):
    edit(folder, **rules[name])
    found = fields(written(folder))
    assert (found["model"], found["pre"]) == ("gpt2", name)


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_llama_cpp_makes_the_same_tokens_of_tricky_text(folder, rules, name):
    edit(folder, **rules[name])
    require_same_tokens(folder)


@pytest.mark.parametrize("kind", ["llama2", "internlm2"])
def test_llama_cpp_makes_the_same_tokens_as_a_sentencepiece_tokenizer(request, kind):
    folder = request.getfixturevalue(kind)
    assert fields(written(folder))["add_space_prefix"] is (kind == "llama2")
    require_same_tokens(folder)


def test_tokens_keep_their_ids_and_kinds(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["<think>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    found = fields(written(folder))
    size = tokenizer.get_vocab_size()
    assert found["tokens"][:size] == [tokenizer.id_to_token(index) for index in range(size)]
    assert found["tokens"][size:] == [f"[PAD{index}]" for index in range(size, ROWS)]
    kinds = list(map(gguf.TokenType, found["token_type"]))
    assert kinds[:4] == [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL]
    assert found["tokens"].index("<think>") == size - 1
    assert kinds[size - 1 : size + 1] == [gguf.TokenType.USER_DEFINED, gguf.TokenType.UNUSED]
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    assert found["merges"] == [" ".join(pair) for pair in merges]


def test_sentencepiece_tokens_keep_their_kinds(internlm2):
    found = fields(written(internlm2))
    model = sentencepiece.SentencePieceProcessor(model_file=str(internlm2 / "tokenizer.model"))
    size = model.get_piece_size()
    assert found["tokens"][:size] == [model.id_to_piece(index) for index in range(size)]
    kinds = list(map(gguf.TokenType, found["token_type"]))
    assert kinds[:3] == [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    assert [kind is gguf.TokenType.BYTE for kind in kinds[:size]] == [
        model.is_byte(index) for index in range(size)
    ]
    assert kinds[found["tokens"].index("[INST]")] == gguf.TokenType.USER_DEFINED
    assert kinds[size:] == [gguf.TokenType.UNUSED] * (ROWS - size)
    assert (found["model"], found["pre"]) == ("llama", "default")
    assert (found["add_bos_token"], found["add_eos_token"]) == (True, False)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ("2", (2, 2, None)),
        ("[2]", (2, 2, None)),
        ("[0, 2]", (0, 2, None)),
        ("[1, 2, 0]", (0, 1, 2)),
        ("[2, 1]", (2, 1, None)),
    ],
)
def test_every_end_token_is_written(folder, ends, expected):
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {ends}}}')
    found = fields(written(folder))
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    assert tuple(found.get(name) for name in names) == expected


def test_llama_cpp_ends_at_every_end_token(folder):
    llama_cpp = pytest.importorskip("llama_cpp")
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 300, 301]}')
    llm = llama_cpp.Llama(str(written(folder)), vocab_only=True, verbose=False)
    vocabulary = llama_cpp.llama_model_get_vocab(llm.model)
    ends = [i for i in range(ROWS) if llama_cpp.llama_vocab_is_eog(vocabulary, i)]
    assert ends == [0, 2, 300, 301]  # 0 is <|endoftext|>, which it knows by name


@pytest.mark.parametrize("tokenizer", ["chatml", "llama3"])
def test_the_bos_is_added_where_the_tokenizer_adds_it(bases, tmp_path, tokenizer):
    folder = shutil.copytree(bases[tokenizer], tmp_path / "merged")
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    assert fields(written(folder))["add_bos_token"] is False
    bos = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}
    if tokenizer == "llama3":
        text = {"Sequence": {"id": "A", "type_id": 0}}
        special = {"id": "<|begin_of_text|>", "ids": [0], "tokens": ["<|begin_of_text|>"]}
        edit(
            folder,
            post_processor={
                "type": "TemplateProcessing",
                "single": [bos, text],
                "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<|begin_of_text|>": special},
            },
        )
        assert fields(written(folder))["add_bos_token"] is True
        require_same_tokens(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre_tokenizer": sequence(split(r"\w+"), BYTES)}, r"cuts text by \\w\+ and bytes, .*smo"),
        ({"pre_tokenizer": None}, "cuts text by nothing"),
        ({"pre_tokenizer": GPT2 | {"add_prefix_space": True}}, "cuts text by .*ByteLevel"),
        ({"model": {"ignore_merges": True}}, "cuts text by gpt2"),
        ({"normalizer": {"type": "Lowercase"}}, r"changes the text first \(Lowercase\)"),
        ({"model": {"merges": []}}, "has no merges"),
    ],
)
def test_rules_llama_cpp_does_not_have_are_refused(folder, change, message):
    edit(folder, **change)
    with pytest.raises(UserError, match=message):
        written(folder)


def without_one_split(model: dict) -> dict:
    """Return a model's merges without one of two that make the same token."""
    made = ["".join(pair) for pair in model["merges"]]
    index = next(index for index, token in enumerate(made) if token in made[:index])
    return {"model": {"merges": model["merges"][:index] + model["merges"][index + 1 :]}}


def without_one_byte(model: dict) -> dict:
    return {"model": {"vocab": {t: i for t, i in model["vocab"].items() if t != "<0x07>"}}}


def with_space_at_the_start(model: dict) -> dict:
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return {"normalizer": None, "pre_tokenizer": metaspace}


def with_a_late_token(model: dict) -> dict:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    return {"added_tokens": [{"id": 2500, "content": "<late>", "normalized": True} | flags]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_one_split, "it never merges"),
        (without_one_byte, "no tokens for some"),
        (with_space_at_the_start, "treats spaces"),
        (with_a_late_token, "no space is put after <late>"),
    ],
)
def test_sentencepiece_rules_llama_cpp_does_not_have_are_refused(llama2, tmp_path, change, message):
    folder = shutil.copytree(llama2, tmp_path / "merged")
    edit(folder, **change(json.loads((folder / "tokenizer.json").read_text())["model"]))
    with pytest.raises(UserError, match=message):
        written(folder)


def test_more_tokens_than_the_model_has_are_refused(folder):
    with pytest.raises(UserError, match="it has 500 tokens, and the model 499"):
        written(folder, rows=499)


@pytest.mark.parametrize("ends", ["[0, 1, 2, 3]", "[]"])
def test_end_tokens_that_do_not_fit_are_refused(folder, ends):
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {ends}}}')
    with pytest.raises(UserError, match="end tokens, not 1 to 3"):
        written(folder)


def test_a_token_that_takes_in_spaces_is_refused(folder):
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    added[1]["rstrip"] = True
    edit(folder, added_tokens=added)
    with pytest.raises(UserError, match=r"<\|im_start\|> take in spaces"):
        written(folder)
