"""Model hubs and what stands in for them: what is fetched, verified, and from where."""

from snaketune.hub.fetch import Fetched, downloads, fetch, fetch_file, move
from snaketune.hub.repository import Unreachable

__all__ = ["Fetched", "Unreachable", "downloads", "fetch", "fetch_file", "move"]
