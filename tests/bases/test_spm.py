"""tokenizer.model becomes tokenizer.json: the ids are those of SentencePiece itself.

PYTHONPATH=scripts pytest tests/bases/test_spm.py
"""

import io
import json
import random
from pathlib import Path

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from snaketune.bases.spm import read_tokenizer
from snaketune.core.errors import UserError

DEFINED = ["<eoh>", "<eoa>", *(f"[UNUSED_TOKEN_{number}]" for number in range(140, 147))]
"""Pieces that stay whole: InternLM's ends of turns, and InternLM2's places for special tokens."""
NAMES = ["<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>"]
NAMES.append("<|im_start|>")
TRICKY = [
    "",
    " ",
    "a",
    " a",
    "  two  spaces   three    four ",
    "\n",
    "\n\n  indented\n\tand a tab\r\n",
    "你好，世界。书生·浦语大模型",
    "全角　空格 \uff21\uff22 é ñ ﬁ ①",
    "😀 emoji 👩‍👩‍👧 families 🐍",
    "1234567890 3.14159 2,000 12ab34",
    "<0x0A> is a text, and so is <unk",
    "a\x00b",
    "x" * 50,
    "def f(x):\n    return {'a': x + 1}  # snakes\n",
    "hi<eoh>\n<|Bot|>: there <eoa> you",
    "<eoh>hi",
    "[UNUSED_TOKEN_140]user\nhi[UNUSED_TOKEN_141]\n",
]


@pytest.fixture(scope="module")
def lines(repository: Path) -> list[str]:
    rows = (repository / "experiments/data/general.jsonl").read_text(encoding="utf-8").splitlines()
    chinese = ["书生浦语大模型，你好，世界。欢迎你", "模型是什么？", "12 345 6.7\n\n    x = 1\n"]
    return [json.loads(row)["text"] for row in rows] + chinese * 30


def trained(lines: list[str], path: Path, **options) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    settings = {
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
        "byte_fallback": True,
        "model_type": "bpe",
        "split_digits": True,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=900,
        allow_whitespace_only_pieces=True,
        character_coverage=0.98,
        user_defined_symbols=DEFINED,
        minloglevel=2,
        **settings | options,
    )
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def saved(path: Path, config: dict) -> Tokenizer:
    """Return what is in tokenizer.json after a tokenizer.model was converted."""
    read_tokenizer(path, config).save_pretrained(path.parent / "saved")
    return Tokenizer.from_file(str(path.parent / "saved/tokenizer.json"))


def texts(lines: list[str]) -> list[str]:
    """Tricky ones, parts of the bundled rows, and random ones of few characters."""
    choose = random.Random(0)
    alphabet = [*"ab c的\nest12", "<eoa>", "  "]
    noise = ["".join(choose.choices(alphabet, k=choose.randint(2, 40))) for _ in range(1000)]
    return TRICKY + [line[::-1] for line in lines[:100]] + lines[:200] + noise


@pytest.mark.parametrize("options", [{}, {"remove_extra_whitespaces": True}], ids=["as is", "trim"])
@pytest.mark.parametrize("prefix", [False, True], ids=["no prefix", "dummy prefix"])
def test_ids_and_text_are_sentencepieces(lines, tmp_path: Path, prefix: bool, options) -> None:
    path = tmp_path / "tokenizer.model"
    reference = trained(lines, path, add_dummy_prefix=prefix, **options)
    tokenizer = saved(path, {})
    for text in texts(lines):
        if text in DEFINED:
            continue  # see the next test
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == reference.encode(text), repr(text)
        assert tokenizer.decode(ids, skip_special_tokens=False) == reference.decode(ids)


def test_the_order_of_merges_is_that_of_the_scores(lines, tmp_path: Path) -> None:
    """A vocabulary put together from several has its ids in another order than its scores."""
    path = tmp_path / "tokenizer.model"
    trained(lines, path)
    proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    kept = [piece for piece in proto.pieces if piece.type != piece.NORMAL]
    moved = [piece for piece in proto.pieces if piece.type == piece.NORMAL]
    random.Random(0).shuffle(moved)
    shuffled = sentencepiece_model_pb2.ModelProto()
    shuffled.CopyFrom(proto)
    del shuffled.pieces[:]
    shuffled.pieces.extend(kept + moved)
    path.write_bytes(shuffled.SerializeToString())
    reference = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    tokenizer = saved(path, {})
    for text in texts(lines):
        assert tokenizer.encode(text, add_special_tokens=False).ids == reference.encode(text)


def test_the_name_of_a_byte_is_no_byte(lines, tmp_path: Path) -> None:
    names = ["a<0x0 bA> c<0x0 dA> e<0x0 fA>"] * 200
    loose = {"split_digits": False, "split_by_number": False, "split_by_unicode_script": False}
    reference = trained(names + lines, tmp_path / "tokenizer.model", **loose)
    tokenizer = saved(tmp_path / "tokenizer.model", {})
    assert {"<0x0", "A>"} <= set(tokenizer.get_vocab())
    pieces = reference.encode("g<0x0A>", out_type=str)
    assert tokenizer.encode("g<0x0A>", add_special_tokens=False).tokens == pieces
    assert tokenizer.encode("\n", add_special_tokens=False).ids == reference.encode("\n")


def test_a_text_that_is_one_defined_piece_lacks_the_prefix(lines, tmp_path: Path) -> None:
    reference = trained(lines, tmp_path / "tokenizer.model", add_dummy_prefix=True)
    tokenizer = saved(tmp_path / "tokenizer.model", {})
    assert reference.encode("<eoa>", out_type=str) == ["▁", "<eoa>"]
    assert tokenizer.encode("<eoa>", add_special_tokens=False).tokens == ["<eoa>"]


def test_characters_are_normalised_as_the_model_says(lines, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    reference = trained(lines, path, normalization_rule_name="nmt_nfkc", add_dummy_prefix=True)
    tokenizer = saved(path, {})
    for text in texts(lines):
        if text not in DEFINED and "\r\n" not in text:
            assert tokenizer.encode(text, add_special_tokens=False).ids == reference.encode(text)


def decoder_entry(content: str) -> dict:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": content, "special": True} | flags


def chat_marks(reference) -> dict[str, dict]:
    """Give InternLM2-chat's special tokens the ids of pieces kept for them, as it does."""
    places = [f"[UNUSED_TOKEN_{number}]" for number in range(141, 147)]
    ids = map(reference.piece_to_id, places)
    return {str(number): decoder_entry(name) for number, name in zip(ids, NAMES, strict=True)}


@pytest.mark.parametrize("prefix", [False, True], ids=["no prefix", "dummy prefix"])
def test_special_tokens_inside_a_text_split_it(lines, tmp_path: Path, prefix: bool) -> None:
    """Each part between them is encoded by itself, as slow tokenizers of transformers do."""
    reference = trained(lines, tmp_path / "tokenizer.model", add_dummy_prefix=prefix)
    marks = chat_marks(reference)
    tokenizer = saved(tmp_path / "tokenizer.model", {"added_tokens_decoder": marks})
    start, end = (reference.piece_to_id(f"[UNUSED_TOKEN_{number}]") for number in (146, 145))
    plugin = reference.piece_to_id("[UNUSED_TOKEN_141]")
    system = "system name=<|plugin|>\n[{}]<|im_end|>\n <|im_start|>assistant\n1 + 1"
    expected = [1, start, *reference.encode("system name="), plugin, *reference.encode("\n[{}]")]
    expected += [end, *reference.encode("\n "), start, *reference.encode("assistant\n1 + 1")]
    assert tokenizer.encode("<|im_start|>" + system).ids == expected
    assert tokenizer.decode(expected[:4]) == reference.decode(expected[2:4])
    assert tokenizer.id_to_token(end) == "<|im_end|>"


def test_tokens_after_the_last_piece_are_added(lines, tmp_path: Path) -> None:
    reference = trained(lines, tmp_path / "tokenizer.model")
    count = reference.get_piece_size()
    added = {str(count): decoder_entry("<img>"), str(count + 1): decoder_entry("</img>")}
    tokenizer = saved(tmp_path / "tokenizer.model", {"added_tokens_decoder": added})
    found = tokenizer.encode("<img>a</img>", add_special_tokens=False).ids
    assert found == [count, *reference.encode("a"), count + 1]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [1]),
        ({"add_bos_token": False}, []),
        ({"bos_token": decoder_entry("</s>")}, [2]),
    ],
)
def test_the_first_token_is_the_configured_one(lines, tmp_path: Path, config, expected) -> None:
    reference = trained(lines, tmp_path / "tokenizer.model")
    saved(tmp_path / "tokenizer.model", config)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer("a snake")["input_ids"] == expected + reference.encode("a snake")
    assert tokenizer("a snake", add_special_tokens=False)["input_ids"] == reference.encode(
        "a snake"
    )
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (2, 2, 0)


def test_a_token_that_does_not_fit_is_refused(lines, tmp_path: Path) -> None:
    trained(lines, tmp_path / "tokenizer.model")
    config = {"added_tokens_decoder": {"5000": decoder_entry("<img>")}}
    with pytest.raises(UserError, match=r"'<img>' has id 5000 in tokenizer_config\.json and 900"):
        read_tokenizer(tmp_path / "tokenizer.model", config)


def test_another_type_of_model_is_refused(lines, tmp_path: Path) -> None:
    trained(lines, tmp_path / "tokenizer.model", model_type="unigram")
    with pytest.raises(UserError, match="another type than BPE"):
        read_tokenizer(tmp_path / "tokenizer.model", {})


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="no SentencePiece model"):
        read_tokenizer(tmp_path / "tokenizer.model", {})
