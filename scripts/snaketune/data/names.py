"""The names of formats and templates as types, for the experiment file's schema."""

from typing import TYPE_CHECKING, Literal

from snaketune.data.formats import FORMATS
from snaketune.data.named_templates import NAMED_TEMPLATES

FORMAT_NAMES = tuple(sorted(FORMATS))
TEMPLATE_NAMES = tuple(NAMED_TEMPLATES)

if TYPE_CHECKING:
    FormatName = str
    TemplateName = str
else:  # pydantic reads the choices while it runs; mypy wants them written out
    FormatName = Literal["auto", *FORMAT_NAMES]
    TemplateName = Literal["auto", *TEMPLATE_NAMES]
