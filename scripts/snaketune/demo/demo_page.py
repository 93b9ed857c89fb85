"""The page: two models to choose, their answers side by side, and the sidebar.

Streamlit runs it from top to bottom at every click. What outlives a run is in the session's state:
the conversation, and the answers being generated, whose threads continue while the page is open.
"""

import time
from collections.abc import Sequence

import streamlit as st

from snaketune.client.answer import Step
from snaketune.client.chat_client import ChatClient
from snaketune.demo import sidebar
from snaketune.demo.background_answer import BackgroundAnswer, stream_answer, use_tools
from snaketune.demo.demo_conversation import DemoAnswer, DemoConversation, DemoTurn
from snaketune.demo.plain import literal, markdown, shortened
from snaketune.demo.setup import Setup

NONE = ""
"""The second box, where one model answers alone."""
_REFRESH_SECONDS = 0.1
_STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding: 3.5rem 1.5rem 6rem; max-width: 84rem; }
[data-testid="stBottomBlockContainer"] { padding: .5rem 1.5rem 1.5rem; max-width: 84rem; }
[data-testid="stSidebar"] h3 { font-size: 1rem; padding-bottom: 0; }
[data-testid="stMain"] h1 { font-size: 1.4rem; } [data-testid="stMain"] h2 { font-size: 1.2rem; }
[data-testid="stMain"] h3 { font-size: 1.05rem; }
[data-testid="stStatusWidget"] { display: none; }
[data-testid="stMain"] pre { white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 40rem) { [data-testid="stMainBlockContainer"] { padding: 3.5rem .8rem 6rem; } }
</style>"""


def show(setup: Setup) -> None:
    st.set_page_config("SnakeTune", layout="wide", initial_sidebar_state="auto")
    st.html(_STYLE)
    st.session_state.setdefault("conversation", DemoConversation())
    _pick(setup)
    with st.sidebar:
        sidebar.show(setup, picked())
    st.chat_input(
        "Ask" if len(picked()) < 2 else "Ask both",
        key="question",
        max_chars=20_000,
        disabled=bool(_running()),
        on_submit=lambda: _ask(setup, st.session_state.question),
    )
    turns = st.session_state.conversation.turns
    # in an element of its own, so that the suggestions are gone as soon as an answer begins
    with st.empty():
        if not turns and not _running():
            _suggest(setup)
    for turn in turns:
        _show_turn(setup, turn, unfolded=turn is turns[-1] and not _running())
    if _running():
        _show_running(setup)


def picked() -> list[str]:
    # the same model twice is one
    names = [st.session_state.one, st.session_state.two]
    return list(dict.fromkeys(filter(None, names)))


def _pick(setup: Setup) -> None:
    first, second = (*setup.picked, NONE)[:2]
    st.session_state.setdefault("one", first)
    st.session_state.setdefault("two", second)
    columns = st.columns(2)

    sides = {"one": ("Model", setup.models), "two": ("Second model", [NONE, *setup.models])}
    for column, (key, (label, names)) in zip(columns, sides.items(), strict=True):
        column.selectbox(
            label,
            names,
            key=key,
            format_func=lambda name: titled(setup, name),
            label_visibility="collapsed",
            disabled=bool(_running()),
        )


def titled(setup: Setup, name: str) -> str:
    if not name:
        return "no second model"
    return f"{name} (base)" if name in setup.bases else name


def _suggest(setup: Setup) -> None:
    names = [name.partition("/")[0] for name in picked()]
    prompts = dict.fromkeys(prompt for name in names for prompt in setup.prompts.get(name, ()))
    with st.container():
        st.caption("Ask below" + (", or try a prompt of the experiment:" if prompts else "."))
        with st.container(horizontal=True):
            for number, prompt in enumerate([*prompts][:4]):
                label = literal(shortened(prompt, 80))
                st.button(label, key=f"prompt-{number}", on_click=_ask, args=(setup, prompt))


def _running() -> list[BackgroundAnswer]:
    return st.session_state.get("running", [])


def _ask(setup: Setup, question: str) -> None:
    conversation: DemoConversation = st.session_state.conversation
    tools, settings = sidebar.tools(setup), sidebar.settings()
    running = []
    for name in picked():
        messages = [*conversation.messages(name), {"role": "user", "content": question}]
        model = ChatClient(setup.client, name, settings.generation(), log=setup.log)
        if tools:
            canned = setup.canned if sidebar.CANNED in tools else None
            names = [tool for tool in tools if tool != sidebar.CANNED]
            turns = st.session_state.max_turn
            study = setup.studies.get(name.partition("/")[0])
            answer = use_tools(model, messages, names, canned, turns, study)
        else:
            answer = stream_answer(model, messages, settings.system)
        running.append(answer)
    st.session_state.pending_turn = DemoTurn.model_construct(
        question=question, settings=None if tools else settings, tools=tools, answers=[]
    )
    # last: another click may end this function at any use of Streamlit's state
    st.session_state.running = running


def _show_running(setup: Setup) -> None:
    """Draw answers as they grow, then keep them; after a click the next run continues here."""
    running = _running()
    _show_question(st.session_state.pending_turn.question)
    columns = st.columns(2) if len(running) == 2 else [st.container()]
    slots = [column.empty() for column in columns]
    st.button("Stop", icon=":material/stop:", on_click=_stop)
    shown: list[object] = [None] * len(running)
    while True:
        # reading the session's state is also where Streamlit ends this run after a click
        done = all(background.done for background in _running())
        for number, (slot, background) in enumerate(zip(slots, running, strict=True)):
            answer, reason = state = background.answer, waiting_reason(background, running)
            if state != shown[number]:
                with slot.container():
                    _show_answer(setup, answer, unfolded=True, waiting=reason)
                shown[number] = state
        if done:
            break
        time.sleep(_REFRESH_SECONDS)
    _keep()
    st.rerun()


def _stop() -> None:
    """Keep the answers as far as they got, unless they ended while Stop was clicked."""
    for background in _running():
        background.stop()
    if _running():
        _keep()


def _keep() -> None:
    """Move the answers, which have all ended, into the conversation.

    A click may end this function at any use of Streamlit's state, so the turn is appended after
    the last use: it is neither lost nor kept twice.
    """
    answers = [background.answer for background in _running()]
    turn = st.session_state.pending_turn.model_copy(update={"answers": answers})
    turns = st.session_state.conversation.turns
    st.session_state.running = []
    turns.append(turn)


def waiting_reason(background: BackgroundAnswer, running: Sequence[BackgroundAnswer]) -> str:
    """What a model without a first token is waiting for; "" once there is one."""
    answer, seconds = background.answer, int(background.elapsed)
    if answer.end != "writing" or answer.text:
        return ""
    if answer.steps:
        reason = "for the next token"
    elif any(it is not background and it.answer.text and not it.done for it in running):
        reason = "the models answer one after the other"
    elif seconds >= 3:
        reason = "the model is being loaded, or the server is busy with another prompt"
    else:
        reason = "for the first token"
    return f"Waiting: {reason} ({seconds} s)" if seconds else f"Waiting: {reason}"


def _show_turn(setup: Setup, turn: DemoTurn, unfolded: bool) -> None:
    """Draw a prompt and its answers side by side; `unfolded` opens the tool calls."""
    _show_question(turn.question)
    columns = st.columns(2) if len(turn.answers) == 2 else [st.container()]
    for column, answer in zip(columns, turn.answers, strict=True):
        with column:
            _show_answer(setup, answer, unfolded)


def _show_question(question: str) -> None:
    with st.chat_message("user", avatar=":material/person:"):
        st.markdown(markdown(question), anchors=False)


def _show_answer(setup: Setup, answer: DemoAnswer, unfolded: bool, waiting: str = "") -> None:
    with st.container(border=True):
        st.caption(f"**{literal(titled(setup, answer.model))}**")
        for number, step in enumerate(answer.steps, start=1):
            _show_step(step, number, unfolded)
        if waiting:
            st.caption(literal(waiting))
        elif st.session_state.get("as_written"):
            st.code(answer.text, language=None, wrap_lines=True)
        else:
            st.markdown(markdown(answer.text), anchors=False)
        if answer.error:
            st.error(literal(shortened(answer.error)), icon=":material/error:")
        if answer.end != "writing":
            st.caption(literal(cost(answer)))


def cost(answer: DemoAnswer) -> str:
    """Tokens and time of an answer, and how it ended if it is not complete: `36 tokens · 4.2 s`."""
    parts = [f"{answer.tokens} token{'s' * (answer.tokens != 1)}"] if answer.tokens else []
    if answer.steps:
        parts.append(f"{len(answer.steps)} step{'s' * (len(answer.steps) > 1)}")
    if answer.text or answer.steps:
        parts.append(f"{answer.seconds:.1f} s")
    # seconds run from the first token, so one token has no speed
    if answer.tokens and answer.tokens > 1 and answer.seconds > 0:
        parts.append(f"{answer.tokens / answer.seconds:.0f} tokens/s")
    if answer.waited_seconds >= 1:
        parts.append(f"waited {answer.waited_seconds:.0f} s")
    ends = {
        "length": "cut off at max new tokens",
        "stopped": "stopped",
        "turns": "out of turns",
        "failed": "failed",
    }
    if answer.end == "complete" and not answer.text:
        parts.append("empty answer")
    return " · ".join([*parts, *([ends[answer.end]] if answer.end in ends else [])])


def _show_step(step: Step, number: int, unfolded: bool) -> None:
    name = literal(shortened(step.tool, 80)) or "no tool call"
    title = f"{number}\\. {name} · {'failed' if step.error else f'{step.seconds:.1f} s'}"
    icon = ":material/error:" if step.error else ":material/build:"
    with st.expander(title, expanded=unfolded, icon=icon), st.container(gap="xxsmall"):
        if step.thought:
            st.markdown(literal(shortened(step.thought)), anchors=False)
        if step.tool_input:
            _show_raw("Input", step.tool_input)
        _show_raw("Error" if step.error else "Result", step.error or step.result)


def _show_raw(title: str, text: str) -> None:
    st.caption(title)
    st.code(shortened(text) or " ", language=None, wrap_lines=True)
