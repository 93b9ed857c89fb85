"""What differs between two answers, word by word; Chinese, Japanese and Korean by character."""

import re
from difflib import SequenceMatcher

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_PARTS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|\s+|.")


def differing(before: str, after: str) -> list[tuple[str, bool]]:
    """Return the parts of `after`, and whether each is not in `before` at that place.

    Joined, the parts are `after`. Parts of a kind that follow each other are one.
    """
    old, new = _PARTS.findall(before), _PARTS.findall(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [
        ("".join(new[begin:end]), kind != "equal")
        for kind, _, _, begin, end in matcher.get_opcodes()
        if end > begin
    ]
