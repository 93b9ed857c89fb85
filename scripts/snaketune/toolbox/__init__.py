"""What a model may call: functions with a name, a description and limits. No Lagent, no torch.

This package is below `experiment`, so that the schema of experiment files knows the tools' names.
"""

from snaketune.toolbox.builtin_tools import BUILTIN_TOOLS, BuiltinTool

__all__ = ["BUILTIN_TOOLS", "BuiltinTool"]
