"""The sidebar: settings, tools, reports, and the conversation as a file."""

from collections.abc import Sequence
from datetime import datetime

import streamlit as st

from snaketune.core.errors import UserError
from snaketune.demo.demo_conversation import DemoConversation, DemoSettings, load
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
    for key, value in _DEFAULTS.items():
        st.session_state.setdefault(key, value)
    st.button("New conversation", icon=":material/add:", on_click=_start, width="stretch")
    st.subheader("Settings", anchor=False)
    _show_sampling()
    _show_answer_options()
    _show_tools(setup)
    _show_reports(setup, picked)
    _show_file(setup)


def settings() -> DemoSettings:
    state = st.session_state
    return DemoSettings(
        temperature=state.temperature,
        top_p=state.top_p,
        max_new_tokens=state.max_new_tokens,
        seed=state.seed if state.temperature else None,  # greedy answers have none
        system=state.system,
    )


def tools(setup: Setup) -> list[str]:
    """The tools that are chosen, of those offered: a browser may send any other name."""
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
        help="0: greedy, the same answer every time. Higher: more varied.",
    )
    sampled = st.session_state.temperature > 0
    st.slider(
        "Top p",
        0.05,
        1.0,
        step=0.05,
        key="top_p",
        disabled=not sampled,
        help="Sample from the most probable tokens with this total probability. 1: all of them.",
    )
    st.number_input(
        "Seed",
        0,
        2**32 - 1,
        key="seed",
        disabled=not sampled,
        help="The same seed, settings and conversation give the same answer.",
    )


def _show_answer_options() -> None:
    st.number_input(
        "Max new tokens",
        1,
        2**20,
        step=64,
        key="max_new_tokens",
        help="The longest answer; a token is about three quarters of an English word.",
    )
    st.text_area(
        "System text",
        key="system",
        height=80,
        max_chars=10_000,
        placeholder="As the model was trained",
        help="The system message. Empty: the one its experiment was trained with.",
    )
    st.toggle(
        "As written",
        key="as_written",
        help="Shows answers as plain text, not formatted.",
    )


def _show_tools(setup: Setup) -> None:
    st.subheader("Tools", anchor=False)
    st.multiselect(
        "Tools",
        _offered(setup),
        key="tools",
        format_func=lambda name: setup.canned.name if name == CANNED and setup.canned else name,
        label_visibility="collapsed",
        placeholder="None: the models answer directly",
        help="Models may call these step by step (ReAct) before they answer.",
    )
    if tools(setup):
        st.number_input(
            "Max turns",
            1,
            20,
            key="max_turn",
            help="Tool calls and the answer together; in the last turn the model has to answer.",
        )
        st.caption("With tools, answers are greedy and the system text is that of the tools.")
    if "google" in tools(setup):
        st.caption("Google needs SERPER\\_API\\_KEY in the environment of this program.")


def _show_reports(setup: Setup, picked: Sequence[str]) -> None:
    trained = dict.fromkeys(n.partition("/")[0] for n in picked if n not in setup.bases)
    if trained:
        st.subheader("Reports", anchor=False)
    for experiment in trained:
        st.caption(f"**{literal(experiment)}**")
        listed = reports(experiment, setup.experiments)
        with st.container(horizontal=True):
            for report in listed:
                if report.exists:
                    st.link_button(report.title, report.path, icon=":material/open_in_new:")
        for report in listed:
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
        help="As JSON: prompts, answers, tool calls and settings.",
        width="stretch",
    )
    # Streamlit empties an uploader only by giving it another key
    key = f"upload-{state.setdefault('uploads', 0)}"
    st.file_uploader(
        "Load a saved conversation",
        type="json",
        key=key,
        on_change=_load,
        args=(setup, key),
        help="Replaces this conversation.",
    )
    if message := state.get("load_error"):
        st.error(literal(message), icon=":material/error:")


def _load(setup: Setup, key: str) -> None:
    """Replace the conversation by an uploaded one, or say why that failed."""
    state, file = st.session_state, st.session_state[key]
    state.load_error = None
    if file is None:
        return
    try:
        conversation = load(file.getvalue())
    except UserError as error:
        state.load_error = f"{file.name} was not loaded.\n{error}"
        return
    _start(conversation)
    last = conversation.turns[-1].answers if conversation.turns else []
    known = [answer.model for answer in last if answer.model in setup.models]
    if known:
        state.one, state.two = (*known, "")[:2]


def _start(conversation: DemoConversation | None = None) -> None:
    """Start a new conversation, or continue a loaded one; answers being generated are stopped."""
    state = st.session_state
    for background in state.get("running", []):
        background.stop()
    state.running, state.load_error = [], None
    state.conversation = conversation or DemoConversation()
    state.uploads = state.get("uploads", 0) + 1
