"""Listen on a port of this machine only."""

import socket

from snaketune.core.errors import UserError


def open_port(port: int) -> socket.socket:
    """Listen on a port of 127.0.0.1.

    Raises:
        UserError: The port is in use, or not allowed.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except (PermissionError, OverflowError) as error:
        raise UserError(
            f"cannot open port {port}: {error}.\n"
            "  Fix: choose one from 1024 to 65535, e.g. --port 8080"
        ) from error
    except OSError as error:
        raise UserError(
            f"port {port} is taken: {error.strerror}. This program may be running already.\n"
            f"  Fix: stop it, or run this one with --port {port + 1}"
        ) from error
