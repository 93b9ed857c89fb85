"""Data formats: how rows of many shapes become conversations.

To add one, write a function in one of the modules below and decorate it with `data_format`; its
name in the schema, in `format: auto`, in messages and in docs/reference.md follows. Light to
import, as the experiment file's schema takes the names from here.
"""

from snaketune.data.formats import agent_formats, chat_formats, flat_formats
from snaketune.data.formats.format_registry import FORMATS, DataFormat, recognise

__all__ = ["FORMATS", "DataFormat", "agent_formats", "chat_formats", "flat_formats", "recognise"]
