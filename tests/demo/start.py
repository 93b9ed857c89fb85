"""Start scripts/demo.py with a server that needs no model."""

import sys
from pathlib import Path

import demo
from snaketune.core import cli
from snaketune.serving import server_process

server_process.PROGRAM = Path(__file__).with_name("stand_in_server.py")
sys.exit(cli.run(demo.main))
