"""What a model says as a terminal may show it."""

_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
_UNWRITABLE = dict.fromkeys([0x7F, *range(0x80, 0xA0), *range(0xD800, 0xE000)], "\ufffd")
_SHOWN = _CONTROLS | _UNWRITABLE | {ord("\r"): None}


def printable(text: str) -> str:
    r"""Return a text without what a terminal obeys: escape codes move, rename and paste.

    Control characters become their pictures (`\x1b` is ␛), those above ASCII and halves of
    characters become U+FFFD; a carriage return, which would overwrite a line, goes.
    """
    return text.translate(_SHOWN)


def encodable(text: str) -> str:
    """Return a text that UTF-8 can hold: what is half a character becomes `?`."""
    return text.encode("utf-8", "replace").decode()
