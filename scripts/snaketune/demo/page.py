"""The page as Streamlit runs it, from its first line at every click."""

from snaketune.demo import setup, view

view.show(setup.current())
