"""What the page shows: two models to pick, their answers side by side, and beside that the rest.

Streamlit runs it from top to bottom at every click. What outlives that is in the session's state:
the conversation, and answers in the making, which go on in threads while somebody looks.
"""

import time
from collections.abc import Sequence
from functools import partial

import streamlit as st

from snaketune.demo import sidebar
from snaketune.demo.answering import Answering, explain, stream, use_tools
from snaketune.demo.conversation import Answer, Conversation, Step, Turn
from snaketune.demo.plain import literal, markdown, shortened
from snaketune.demo.setup import Setup

NONE = ""
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
    """Show the page as it is now."""
    st.set_page_config("SnakeTune", layout="wide", initial_sidebar_state="auto")
    st.html(_STYLE)
    st.session_state.setdefault("conversation", Conversation())
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
    with st.empty():  # an element of its own, so that it is gone as soon as something was asked
        if not turns and not _running():
            _suggest(setup)
    for turn in turns:
        _show_turn(setup, turn, unfolded=turn is turns[-1] and not _running())
    if _running():
        _show_running(setup)


def picked() -> list[str]:
    """Return the one or two models that are asked."""
    names = [st.session_state.one, st.session_state.two]
    return list(dict.fromkeys(filter(None, names)))


def _pick(setup: Setup) -> None:
    """Let two models be picked, above the columns of their answers."""
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
    """Return a model's name as it is shown."""
    if not name:
        return "no second model"
    return f"{name} (base)" if name in setup.bases else name


def _suggest(setup: Setup) -> None:
    """Offer the prompts of the experiments that are picked."""
    names = [name.partition("/")[0] for name in picked()]
    prompts = dict.fromkeys(prompt for name in names for prompt in setup.prompts.get(name, ()))
    with st.container():
        st.caption("Ask below" + (", or one of the experiment's prompts:" if prompts else "."))
        with st.container(horizontal=True):
            for number, prompt in enumerate([*prompts][:4]):
                label = literal(shortened(prompt, 80))
                st.button(label, key=f"prompt-{number}", on_click=_ask, args=(setup, prompt))


def _running() -> list[Answering]:
    """Return the answers in the making."""
    return st.session_state.get("running", [])


def _ask(setup: Setup, question: str) -> None:
    """Begin an answer of each model that is picked."""
    conversation: Conversation = st.session_state.conversation
    tools, settings = sidebar.tools(setup), sidebar.settings()
    running = []
    for name in picked():
        messages = [*conversation.messages(name), {"role": "user", "content": question}]
        if tools:
            canned = setup.canned if sidebar.CANNED in tools else None
            names = [tool for tool in tools if tool != sidebar.CANNED]
            turns = st.session_state.max_turn
            study = setup.studies.get(name.partition("/")[0])
            write = use_tools(setup.client, name, messages, names, canned, turns, study)
        else:
            write = stream(setup.client, name, messages, settings)
        running.append(Answering(name, write, partial(explain, model=name, log=setup.log)))
    st.session_state.asked = Turn.model_construct(
        question=question, settings=None if tools else settings, tools=tools, answers=[]
    )
    st.session_state.running = running  # last, as a click may end this before it


def _show_running(setup: Setup) -> None:
    """Show answers as they grow, then keep them; a click meanwhile comes back to here."""
    running = _running()
    _show_question(st.session_state.asked.question)
    columns = st.columns(2) if len(running) == 2 else [st.container()]
    slots = [column.empty() for column in columns]
    st.button("Stop", icon=":material/stop:", on_click=_stop)
    shown: list[object] = [None] * len(running)
    while True:
        done = all(each.done for each in _running())  # asks Streamlit too: a click ends this run
        for number, (slot, each) in enumerate(zip(slots, running, strict=True)):
            now = (each.answer, waiting(each, running))
            if now != shown[number]:
                with slot.container():
                    _show_answer(setup, each.answer, unfolded=True, waits=now[1])
                shown[number] = now
        if done:
            break
        time.sleep(_REFRESH_SECONDS)
    _keep()
    st.rerun()


def _stop() -> None:
    """Keep what there is of the answers, unless they ended while Stop was clicked."""
    for each in _running():
        each.stop()
    if _running():
        _keep()


def _keep() -> None:
    """Move the answers, which have all ended, into the conversation.

    A click may end this at any use of Streamlit's state: after the last one they are moved.
    """
    answers = [each.answer for each in _running()]
    turn = st.session_state.asked.model_copy(update={"answers": answers})
    turns = st.session_state.conversation.turns
    st.session_state.running = []
    turns.append(turn)


def waiting(answering: Answering, running: Sequence[Answering]) -> str:
    """Return what a model without a first word is waiting for, else nothing."""
    answer, seconds = answering.answer, int(answering.elapsed)
    if answer.end != "writing" or answer.text:
        return ""
    if answer.steps:
        reason = "for the next word"
    elif any(each is not answering and each.answer.text and not each.done for each in running):
        reason = "the models answer one after the other"
    elif seconds >= 3:
        reason = "a model is loaded when it is first asked, and others may be asking"
    else:
        reason = "for the first word"
    return f"Waiting: {reason} ({seconds} s)" if seconds else f"Waiting: {reason}"


def _show_turn(setup: Setup, turn: Turn, unfolded: bool) -> None:
    """Show a question and the answers to it, side by side; unfolded: with the tool calls open."""
    _show_question(turn.question)
    columns = st.columns(2) if len(turn.answers) == 2 else [st.container()]
    for column, answer in zip(columns, turn.answers, strict=True):
        with column:
            _show_answer(setup, answer, unfolded)


def _show_question(question: str) -> None:
    with st.chat_message("user", avatar=":material/person:"):
        st.markdown(markdown(question), anchors=False)


def _show_answer(setup: Setup, answer: Answer, unfolded: bool, waits: str = "") -> None:
    """Show one model's answer with its tool calls; below it what it took."""
    with st.container(border=True):
        st.caption(f"**{literal(titled(setup, answer.model))}**")
        for number, step in enumerate(answer.steps, start=1):
            _show_step(step, number, unfolded)
        if waits:
            st.caption(literal(waits))
        elif st.session_state.get("as_written"):
            st.code(answer.text, language=None, wrap_lines=True)
        else:
            st.markdown(markdown(answer.text), anchors=False)
        if answer.error:
            st.error(literal(shortened(answer.error)), icon=":material/error:")
        if answer.end != "writing":
            st.caption(literal(cost(answer)))


def cost(answer: Answer) -> str:
    """Return what an answer took, and how it ended if not by itself: `36 tokens · 4.2 s`."""
    parts = [f"{answer.tokens} token{'s' * (answer.tokens != 1)}"] if answer.tokens else []
    if answer.steps:
        parts.append(f"{len(answer.steps)} step{'s' * (len(answer.steps) > 1)}")
    if answer.text or answer.steps:
        parts.append(f"{answer.seconds:.1f} s")
    if answer.tokens and answer.tokens > 1 and answer.seconds > 0:
        parts.append(f"{answer.tokens / answer.seconds:.0f} tokens/s")
    if answer.waited_seconds >= 1:
        parts.append(f"waited {answer.waited_seconds:.0f} s")
    ends = {
        "length": "cut at max new tokens",
        "stopped": "stopped",
        "turns": "out of turns",
        "failed": "failed",
    }
    if answer.end == "complete" and not answer.text:
        parts.append("an empty answer")
    return " · ".join([*parts, *([ends[answer.end]] if answer.end in ends else [])])


def _show_step(step: Step, number: int, unfolded: bool) -> None:
    """Show one tool call: thought, input, and result or error."""
    name = literal(shortened(step.tool, 80)) or "no tool was called"
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
