"""SentencePiece's `tokenizer.model` (BPE) as tokenizer.json, with the same ids for every text.

For models whose own tokenizer is Python code in their repository; none of it is run. What follows
are SentencePiece's rules and those of the slow tokenizers of transformers around them: special
tokens are cut out of the text first, and each part between them is encoded by itself.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2 as _module
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from snaketune.core.errors import UserError

_protocol: Any = _module  # its classes are made when it is imported
_Piece = _protocol.ModelProto.SentencePiece
_BPE = _protocol.TrainerSpec.BPE
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
_DEFAULTS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
_SPACE = "▁"


def read_tokenizer(path: Path, config: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a `tokenizer.model`.

    Args:
        path: A SentencePiece model of type BPE.
        config: tokenizer_config.json. Its `added_tokens_decoder` gives special tokens: they take
            the place of a piece with their id, or come after the last.

    Raises:
        UserError: It is no such model, or an added token does not fit it.
    """
    proto = _read(path)
    added = _added_tokens(config)
    tokenizer = _tokenizer(proto, {number: token.content for number, token in added.items()})
    tokenizer.normalizer = _normalizer(proto)
    tokenizer.decoder = _decoder(proto)
    _add_tokens(tokenizer, proto, added, path)
    named = {key: _content(config.get(key, _DEFAULTS[key])) for key in _NAMED}
    tokenizer.post_processor = _post_processor(tokenizer, named, config)
    kept = {key: config[key] for key in ("chat_template", "model_max_length") if config.get(key)}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named, **kept
    )


def _read(path: Path) -> Any:
    proto = _protocol.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise UserError(
            f"{path.name} is no SentencePiece model: {error}.\n  Fix: fetch that file again."
        ) from error
    spec = proto.normalizer_spec
    odd = {
        "a model of another type than BPE": proto.trainer_spec.model_type != _BPE,
        "spaces at the end of a word": proto.trainer_spec.treat_whitespace_as_suffix,
        "spaces that are not escaped": not spec.escape_whitespaces,
    }
    found = [what for what, is_so in odd.items() if is_so]
    if found:
        raise UserError(
            f"{path.name} has {' and '.join(found)}, which is not known to convert exactly.\n"
            "  Fix: name a revision that has tokenizer.json."
        )
    return proto


def _added_tokens(config: Mapping[str, Any]) -> dict[int, AddedToken]:
    keys = ("lstrip", "rstrip", "single_word", "special")
    return {
        int(number): AddedToken(
            token["content"], normalized=False, **{key: token.get(key, False) for key in keys}
        )
        for number, token in sorted(
            config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0])
        )
    }


def _tokenizer(proto: Any, renamed: Mapping[int, str]) -> Tokenizer:
    """Return the bare BPE; only ordinary pieces come from merges, as in SentencePiece."""
    names = [renamed.get(number, piece.piece) for number, piece in enumerate(proto.pieces)]
    vocabulary = {name: number for number, name in enumerate(names)}
    scores = {
        name: piece.score
        for name, piece in zip(names, proto.pieces, strict=True)
        if piece.type == _Piece.NORMAL and name == piece.piece
    }
    return Tokenizer(
        BPE(
            vocabulary,
            generate_merges({name: vocabulary[name] for name in scores}, scores),
            unk_token=names[proto.trainer_spec.unk_id],
            fuse_unk=True,
            byte_fallback=proto.trainer_spec.byte_fallback,
        )
    )


def _normalizer(proto: Any) -> normalizers.Normalizer:
    """Return what happens to a part of the text: a space before it where the model wants one.

    tokenizers normalises user-defined pieces too before it looks for them, so the space goes again
    where there is nothing but one; a part that is nothing else then lacks SentencePiece's `▁`.
    InternLM's models change no characters; for those that do, tokenizers takes `\\r\\n` for one.
    """
    spec = proto.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z| +(?= )"), ""))
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    steps.append(normalizers.Replace(" ", _SPACE))
    defined = "|".join(re.escape(piece) for piece in _user_defined(proto))
    if spec.add_dummy_prefix and defined:
        steps.append(normalizers.Replace(Regex(rf"\A{_SPACE}(?=(?:{defined})\z)"), ""))
    return normalizers.Sequence(steps)


def _user_defined(proto: Any) -> list[str]:
    return [piece.piece for piece in proto.pieces if piece.type == _Piece.USER_DEFINED]


def _decoder(proto: Any) -> decoders.Decoder:
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if proto.normalizer_spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", left=1))
    return decoders.Sequence(steps)


def _add_tokens(
    tokenizer: Tokenizer, proto: Any, added: Mapping[int, AddedToken], path: Path
) -> None:
    """Make whole tokens of control pieces, user-defined pieces and added tokens."""
    tokens = dict(added)
    for number, piece in enumerate(proto.pieces):
        if piece.type in (_Piece.CONTROL, _Piece.UNKNOWN):
            tokens.setdefault(number, AddedToken(piece.piece, special=True, normalized=False))
        elif piece.type == _Piece.USER_DEFINED:
            tokens.setdefault(number, AddedToken(piece.piece, special=False, normalized=True))
    for number, token in sorted(tokens.items()):
        tokenizer.add_tokens([token])
        found = tokenizer.token_to_id(token.content)
        if found != number:
            raise UserError(
                f"the added token '{token.content}' has id {number} in tokenizer_config.json and "
                f"{found} by {path.name}.\n"
                "  Fix: name a repository whose tokenizer files belong together."
            )


def _post_processor(
    tokenizer: Tokenizer, named: Mapping[str, str], config: Mapping[str, Any]
) -> processors.TemplateProcessing:
    bos, eos = named["bos_token"], named["eos_token"]
    before = [bos] if config.get("add_bos_token", True) else []
    after = [eos] if config.get("add_eos_token", False) else []
    second = [f"{token}:1" for token in (*before, "$B", *after)]
    return processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *second],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (bos, eos)],
    )


def _content(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else token
