"""A tokenizer as a GGUF file holds it.

llama.cpp does not read a tokenizer's rules: it has some of its own, by name. So a tokenizer is
written where its rules are those of a name, and refused where none would give the same tokens.
"""

import json
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedTokenizerBase

from snaketune.core.errors import UserError
from snaketune.models.load_model import load_tokenizer

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NAMES = {
    (("digits", "gpt2"), False): "smollm",
    (("gpt2",), False): "gpt-2",
    ((_WORDS % "{1,3}", "bytes"), True): "llama-bpe",
    ((_WORDS % "{1,3}", "bytes"), False): "smaug-bpe",
    ((_WORDS % "", "bytes"), False): "qwen2",
}
"""llama.cpp's name for how a text is cut before merging, and whether whole words skip merging."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\u2581"
_PREPEND = {"type": "Prepend", "prepend": _SPACE}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}


def add_tokenizer(writer: GGUFWriter, folder: Path, rows: int) -> None:
    """Add tokens, rules, special and end tokens and the chat template of a model's folder.

    Args:
        writer: Has not written its header yet.
        folder: With tokenizer.json, tokenizer_config.json and generation_config.json.
        rows: Of the embedding; ids that the tokenizer does not use are filled up.

    Raises:
        UserError: llama.cpp would make other tokens of a text than this tokenizer.
    """
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw = json.loads(backend.to_str())
    if _size(raw) > rows:
        raise _refused(folder, f"it has {_size(raw)} tokens, and the model {rows}")
    marked = [t["content"] for t in raw["added_tokens"] if _takes_neighbours(t)]
    if marked:
        raise _refused(folder, f"{', '.join(marked)} take in spaces beside them")
    if raw["model"]["type"] != "BPE" or raw["model"]["dropout"]:
        raise _refused(folder, f"its model is {raw['model']['type']}, not BPE without dropout")
    if raw["model"]["byte_fallback"]:
        _add_sentencepiece(writer, raw, rows, folder)
    else:
        _add_byte_level(writer, raw, folder)
    _add_tokens(writer, raw, rows, folder)
    _add_special(writer, backend, folder)


def _takes_neighbours(token: dict[str, Any]) -> bool:
    return bool(token["lstrip"] or token["rstrip"] or token["single_word"])


def _add_byte_level(writer: GGUFWriter, raw: dict[str, Any], folder: Path) -> None:
    model = raw["model"]
    normalizers = [each["type"] for each in _flat(raw["normalizer"], "normalizers")]
    # llama.cpp composes no characters, which changes nothing in text that is NFC, as most is
    if normalizers not in ([], ["NFC"]):
        raise _refused(folder, f"it changes the text first ({', '.join(normalizers)})")
    rules = tuple(map(_rule, _flat(raw["pre_tokenizer"], "pretokenizers")))
    name = _NAMES.get((rules, model["ignore_merges"]))
    if name is None or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        raise _refused(
            folder,
            f"it cuts text by {' and '.join(rules) or 'nothing'}, which is none of "
            + ", ".join(_NAMES.values()),
        )
    if not model["merges"]:
        raise _refused(folder, "it has no merges")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])


def _rule(step: dict[str, Any]) -> str:
    """Return a pre-tokenizer in a word, or its pattern."""
    match step:
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": uses}:
            return "gpt2" if uses else "bytes"
        case {"pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return pattern
    return json.dumps(step, ensure_ascii=False)


def _add_sentencepiece(writer: GGUFWriter, raw: dict[str, Any], rows: int, folder: Path) -> None:
    vocabulary, merges = raw["model"]["vocab"], raw["model"]["merges"]
    if sum(map(bool, map(_BYTE.fullmatch, vocabulary))) != 256:
        raise _refused(folder, "it falls back to bytes and has no tokens for some")
    prepends = _prepends_space(raw, folder)
    late = [t["content"] for t in raw["added_tokens"] if t["normalized"]]
    if prepends and late:
        raise _refused(folder, f"no space is put after {', '.join(late)}, as they are 'normalized'")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_add_space_prefix(prepends)
    ranks = _ranks(vocabulary, merges, folder)
    scores = [0.0] * rows
    for token, index in vocabulary.items():
        scores[index] = -float(ranks.get(token, len(merges)))
    writer.add_token_scores(scores)


def _prepends_space(raw: dict[str, Any], folder: Path) -> bool:
    """Return whether a space is put before a text and after each special token."""
    steps = _flat(raw["normalizer"], "normalizers")
    match raw["pre_tokenizer"]:
        case None if steps in ([_REPLACE], [_PREPEND, _REPLACE]):
            return _PREPEND in steps
        case {"replacement": "\u2581", "prepend_scheme": "never", "split": False} if not steps:
            return False
    raise _refused(folder, "it treats spaces as neither Llama 2 does nor plainly")


def _ranks(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], folder: Path
) -> dict[str, int]:
    """Return the rank of each token that is merged of others.

    SentencePiece merges any two tokens whose sum is a token; a BPE that merges only some of them
    is another tokenizer.
    """
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    known = {(left, right) for left, right in merges}
    for token in ranks:
        for cut in range(1, len(token)):
            pair = token[:cut], token[cut:]
            if pair not in known and pair[0] in vocabulary and pair[1] in vocabulary:
                raise _refused(folder, f"it never merges {pair[0]} and {pair[1]} to {token}")
    return ranks


def _add_tokens(writer: GGUFWriter, raw: dict[str, Any], rows: int, folder: Path) -> None:
    names = [f"[PAD{index}]" for index in range(rows)]
    types = [TokenType.UNUSED] * rows
    pieces = raw["model"]["byte_fallback"]
    for token, index in raw["model"]["vocab"].items():
        is_byte = pieces and _BYTE.fullmatch(token)
        names[index], types[index] = token, TokenType.BYTE if is_byte else TokenType.NORMAL
    for added in raw["added_tokens"]:
        index, is_special = added["id"], added["special"]
        names[index] = added["content"] if is_special else added["content"].replace(_SPACE, " ")
        types[index] = TokenType.CONTROL if is_special else TokenType.USER_DEFINED
    unknown = raw["model"]["vocab"].get(raw["model"]["unk_token"])
    if pieces and unknown is not None:
        types[unknown] = TokenType.UNKNOWN
    if len(set(names)) < rows:
        raise _refused(folder, "two of its tokens have one name")
    writer.add_token_list(names)
    writer.add_token_types(types)


def _add_special(writer: GGUFWriter, backend: Tokenizer, folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    ends = end_tokens(tokenizer, folder)
    for name, end in zip(("eos", "eot", "eom"), ends, strict=False):
        getattr(writer, f"add_{name}_token_id")(end)
    bos = tokenizer.bos_token_id
    writer.add_bos_token_id(ends[0] if bos is None else bos)  # without one llama.cpp takes 11
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    adds_bos, adds_eos = _added_around(backend, bos, ends[0], folder)
    writer.add_add_bos_token(adds_bos)
    writer.add_add_eos_token(adds_eos)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def end_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[int]:
    """Return what ends an answer, as llama.cpp's end of text, of turn and of message: 2 or 3 ids.

    Without an end of turn llama.cpp looks for one among the tokens' names.

    Raises:
        UserError: There are none, or more than llama.cpp has fields for.
    """
    found = GenerationConfig.from_pretrained(folder).eos_token_id
    ends = [found] if isinstance(found, int) else list(found or [])
    ends.sort(key=lambda index: index != tokenizer.eos_token_id)  # stable
    if not 1 <= len(ends) <= 3:
        raise _refused(folder, f"generation_config.json has {len(ends)} end tokens, not 1 to 3")
    return ends if len(ends) > 1 else ends * 2


def _added_around(backend: Tokenizer, bos: int | None, eos: int, folder: Path) -> tuple[bool, bool]:
    """Return whether the BOS is put before every text and the EOS after it."""
    text = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a").ids
    for adds_bos, adds_eos in product((False, True), repeat=2):
        if whole == [bos] * adds_bos + text + [eos] * adds_eos:
            return adds_bos, adds_eos
    raise _refused(folder, "it adds other tokens to a text than the BOS and the EOS")


def _flat(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """Return the steps of a sequence, of one step, or none."""
    if step is None:
        return []
    return step[key] if step["type"] == "Sequence" else [step]


def _size(raw: dict[str, Any]) -> int:
    ids: Iterable[int] = [*raw["model"]["vocab"].values(), *(t["id"] for t in raw["added_tokens"])]
    return max(ids) + 1


def _refused(folder: Path, reason: str) -> UserError:
    return UserError(
        f"llama.cpp has no tokenizer that gives the tokens of {folder / 'tokenizer.json'}: "
        f"{reason}.\n"
        "  No GGUF was written, as it would answer worse than the model. Fix: serve the merged "
        "folder itself, e.g. with transformers or vLLM."
    )
