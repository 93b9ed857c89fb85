"""The difference between two answers, word by word; Chinese, Japanese and Korean by character."""

import re
from difflib import SequenceMatcher

# Hiragana to Katakana, CJK extension A, CJK, Hangul, compatibility ideographs, the later extensions
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_PARTS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|\s+|.")


def mark_differences(before: str, after: str) -> list[tuple[str, bool]]:
    """Split `after` into parts, each with whether it is new, that is not in `before` at that place.

    Joined, the parts are `after`; neighbours of one kind are one part.
    """
    old, new = _PARTS.findall(before), _PARTS.findall(after)
    # autojunk would ignore frequent words of answers of 200 parts and more, such as spaces
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [
        ("".join(new[begin:end]), kind != "equal")
        for kind, _, _, begin, end in matcher.get_opcodes()
        if end > begin
    ]
