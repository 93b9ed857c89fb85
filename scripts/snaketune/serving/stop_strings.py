"""Stop strings, which a server must not send: the answer ends before the first one."""

from collections.abc import Sequence


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, str]:
    """Split a text into what may be sent and an end that may be the beginning of a stop string.

    If a whole stop string is in it, the text ends before it and nothing is held back.
    """
    if positions := [text.index(stop) for stop in stops if stop in text]:
        return text[: min(positions)], ""
    held = max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )
    return text[: len(text) - held], text[len(text) - held :]


class StopStringFilter:
    """Filters a streamed answer, whose stop string may be spread over several pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False
        """A stop string came: the rest of the answer is not sent."""

    def feed(self, piece: str) -> str:
        """Take the next piece of the answer; returns what can be sent now."""
        if self.stopped:
            return ""
        text = self._held + piece
        self.stopped = any(stop in text for stop in self._stops)
        sent, self._held = cut_at_stop(text, self._stops)
        return sent

    def flush(self) -> str:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        return held
