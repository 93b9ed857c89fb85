"""Text that a terminal can show and UTF-8 can encode."""

_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
_UNWRITABLE = dict.fromkeys([0x7F, *range(0x80, 0xA0), *range(0xD800, 0xE000)], "\ufffd")
_SHOWN = _CONTROLS | _UNWRITABLE | {ord("\r"): None}


def printable(text: str) -> str:
    r"""Make a model's text harmless for a terminal, whose escape codes move, rename and paste.

    Control characters become their pictures (`\x1b` is ␛), those above ASCII and lone surrogates
    become U+FFFD; a carriage return, which would overwrite a line, is removed.
    """
    return text.translate(_SHOWN)


def encodable(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, by `?`."""
    return text.encode("utf-8", "replace").decode()
