"""The page as Streamlit runs it, from the first line at every click."""

from snaketune.demo import demo_page, setup

demo_page.show(setup.current())
