"""Work tells its speed in words that fit it: many a second, or many seconds each."""

import logging
from unittest.mock import MagicMock

import pytest

from snaketune.core import progress


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (11, "work: 55 of 100 rows eta 0:00:09 5 rows/s"),
        (1100, "work: 55 of 100 rows eta 0:15:00 20.0 s each"),
    ],
)
def test_the_speed_is_told(monkeypatch, caplog, seconds, told):
    clock = iter([0.0, float(seconds)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "progress_bar", MagicMock())
    with (
        caplog.at_level(logging.INFO, "snaketune"),
        progress.track_progress("work", 100, "rows") as done,
    ):
        done(55)
    assert [" ".join(message.split()) for message in caplog.messages] == [told]
