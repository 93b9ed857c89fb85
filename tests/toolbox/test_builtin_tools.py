"""The registry of built-in tools: what follows from an entry."""

import inspect
import subprocess
import sys
from typing import get_args

import pytest

from snaketune.core.errors import UserError
from snaketune.experiment.schema import ToolName
from snaketune.toolbox import BUILTIN_TOOLS, BuiltinTool


def test_schema_knows_every_tool():
    assert list(get_args(ToolName)) == list(BUILTIN_TOOLS)
    assert list(BUILTIN_TOOLS) == ["arithmetic", "python", "arxiv", "google"]


@pytest.mark.parametrize("tool", BUILTIN_TOOLS.values(), ids=BUILTIN_TOOLS)
def test_every_parameter_has_a_type_and_a_description(tool):
    assert tool.description.endswith(".")
    for parameter in inspect.signature(tool.function).parameters.values():
        assert parameter.annotation.__origin__ in (str, int, float, bool)
        assert parameter.annotation.__metadata__[0]


def test_missing_package_names_the_tool():
    tool = BuiltinTool("x", "X", "Does.", str, packages=("no_such_package",))
    with pytest.raises(UserError, match=r"the tool 'x' needs no_such_package(.|\n)*\[agent\]"):
        tool.check()


def test_names_are_known_without_the_tools_packages():
    code = (
        "import sys, snaketune.toolbox\n"
        "assert not {'lagent', 'pydantic_monty', 'arxiv', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
