"""The page's side: settings, tools, reports, and the conversation as a file."""

from collections.abc import Sequence
from datetime import datetime

import streamlit as st

from snaketune.core.errors import UserError
from snaketune.demo.conversation import Conversation, Settings, load
from snaketune.demo.plain import literal
from snaketune.demo.reports import reports
from snaketune.demo.setup import Setup

CANNED = "canned"
_DEFAULTS = {
    "temperature": 0.0,
    "top_p": 1.0,
    "max_new_tokens": 256,
    "seed": 0,
    "system": "",
    "tools": [],
    "max_turn": 7,
    "as_written": False,
}


def show(setup: Setup, picked: Sequence[str]) -> None:
    """Show the side for these models."""
    for key, value in _DEFAULTS.items():
        st.session_state.setdefault(key, value)
    st.button("New conversation", icon=":material/add:", on_click=_begin, width="stretch")
    st.subheader("Settings", anchor=False)
    _show_sampling()
    _show_form()
    _show_tools(setup)
    _show_reports(setup, picked)
    _show_file(setup)


def settings() -> Settings:
    """Return the settings as they are picked now."""
    state = st.session_state
    return Settings(
        temperature=state.temperature,
        top_p=state.top_p,
        max_new_tokens=state.max_new_tokens,
        seed=state.seed if state.temperature else None,
        system=state.system,
    )


def tools(setup: Setup) -> list[str]:
    """Return the tools that are picked; what a browser sends is not trusted to be offered."""
    return [name for name in st.session_state.tools if name in _offered(setup)]


def _offered(setup: Setup) -> list[str]:
    return [*setup.tools, *([CANNED] if setup.canned else [])]


def _show_sampling() -> None:
    st.slider(
        "Temperature",
        0.0,
        2.0,
        step=0.1,
        key="temperature",
        help="0: always the likeliest word, so the same answer each time. Higher: more varied.",
    )
    sampled = st.session_state.temperature > 0
    st.slider(
        "Top p",
        0.05,
        1.0,
        step=0.05,
        key="top_p",
        disabled=not sampled,
        help="Only the likeliest words that together have this probability. 1: all of them.",
    )
    st.number_input(
        "Seed",
        0,
        2**32 - 1,
        key="seed",
        disabled=not sampled,
        help="The same seed, settings and conversation give the same answer.",
    )


def _show_form() -> None:
    st.number_input(
        "Max new tokens",
        1,
        2**20,
        step=64,
        key="max_new_tokens",
        help="Where an answer is cut; a token is about three quarters of a word.",
    )
    st.text_area(
        "System text",
        key="system",
        height=80,
        max_chars=10_000,
        placeholder="As the model was trained",
        help="Says first who the model is to be. Empty: what its experiment was trained with.",
    )
    st.toggle(
        "As written",
        key="as_written",
        help="Shows every character of an answer in place of formatted text.",
    )


def _show_tools(setup: Setup) -> None:
    st.subheader("Tools", anchor=False)
    st.multiselect(
        "Tools",
        _offered(setup),
        key="tools",
        format_func=lambda name: setup.canned.name if name == CANNED and setup.canned else name,
        label_visibility="collapsed",
        placeholder="None: the models just answer",
        help="The model may call these, step by step (ReAct), before it answers.",
    )
    if tools(setup):
        st.number_input(
            "Most turns",
            1,
            20,
            key="max_turn",
            help="Tool calls and the answer together; in the last turn it is told to answer.",
        )
        st.caption("With tools the answers are greedy and bring their own system text.")
    if "google" in tools(setup):
        st.caption("Google needs SERPER\\_API\\_KEY in the environment of this program.")


def _show_reports(setup: Setup, picked: Sequence[str]) -> None:
    trained = dict.fromkeys(n.partition("/")[0] for n in picked if n not in setup.bases)
    if trained:
        st.subheader("Reports", anchor=False)
    for name in trained:
        st.caption(f"**{literal(name)}**")
        found = reports(name, setup.experiments)
        with st.container(horizontal=True):
            for report in found:
                if report.exists:
                    st.link_button(report.title, report.path, icon=":material/open_in_new:")
        for report in found:
            if not report.exists:
                st.caption(f"{report.title}: not built yet. Build it with")
                st.code(report.command, language="sh", wrap_lines=True)


def _show_file(setup: Setup) -> None:
    state = st.session_state
    st.subheader("Conversation", anchor=False)
    st.download_button(
        "Save",
        state.conversation.saved(),
        file_name=f"conversation-{datetime.now():%Y-%m-%d-%H%M}.json",
        mime="application/json",
        icon=":material/download:",
        on_click="ignore",
        disabled=not state.conversation.turns,
        help="As JSON: questions, answers, tool calls, and the settings of each.",
        width="stretch",
    )
    key = f"upload-{state.setdefault('uploads', 0)}"
    st.file_uploader(
        "Load a saved one",
        type="json",
        key=key,
        on_change=_load,
        args=(setup, key),
        help="It takes the place of this one.",
    )
    if message := state.get("refused"):
        st.error(literal(message), icon=":material/error:")


def _load(setup: Setup, key: str) -> None:
    """Put an uploaded conversation in the place of the one that is shown, or say why not."""
    state, file = st.session_state, st.session_state[key]
    state.refused = None
    if file is None:
        return
    try:
        conversation = load(file.getvalue())
    except UserError as error:
        state.refused = f"{file.name} was not loaded.\n{error}"
        return
    _begin(conversation)
    last = conversation.turns[-1].answers if conversation.turns else []
    known = [answer.model for answer in last if answer.model in setup.models]
    if known:
        state.one, state.two = (*known, "")[:2]


def _begin(conversation: Conversation | None = None) -> None:
    """Begin anew, or with a conversation; answers in the making end."""
    state = st.session_state
    for each in state.get("running", []):
        each.stop()
    state.running, state.refused = [], None
    state.conversation = conversation or Conversation()
    state.uploads = state.get("uploads", 0) + 1  # another key empties the list of files
