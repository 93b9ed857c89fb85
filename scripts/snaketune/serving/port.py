"""A port of this machine alone."""

import socket
from pathlib import Path

from snaketune.errors import UserError


def open_port(port: int, program: str) -> socket.socket:
    """Return a socket that listens on a port of 127.0.0.1.

    Args:
        program: The file that asks, for the advice.

    Raises:
        UserError: The port is taken, or not for everyone to take.
    """
    again = f"python scripts/{Path(program).name} --port"
    try:
        return socket.create_server(("127.0.0.1", port))
    except (PermissionError, OverflowError) as error:
        raise UserError(
            f"port {port} cannot be opened: {error}.\n"
            f"  Fix: take one from 1024 to 65535, e.g. {again} 8080"
        ) from error
    except OSError as error:
        raise UserError(
            f"port {port} is taken: {error.strerror}. Perhaps it is open already.\n"
            f"  Fix: stop that program, or run: {again} {port + 1}"
        ) from error
