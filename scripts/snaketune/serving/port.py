"""A port of this machine alone."""

import socket

from snaketune.core.errors import UserError


def open_port(port: int) -> socket.socket:
    """Return a socket that listens on a port of 127.0.0.1.

    Raises:
        UserError: The port is taken, or not for everyone to take.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except (PermissionError, OverflowError) as error:
        raise UserError(
            f"port {port} cannot be opened: {error}.\n"
            f"  Fix: take one from 1024 to 65535, e.g. --port 8080"
        ) from error
    except OSError as error:
        raise UserError(
            f"port {port} is taken: {error.strerror}. Perhaps it is open already.\n"
            f"  Fix: stop that program, or run this one with --port {port + 1}"
        ) from error
