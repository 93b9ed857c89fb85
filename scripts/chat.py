"""Chat with an experiment's model in the terminal, or answer prompts from a script.

python scripts/chat.py assistant_mixed
python scripts/chat.py assistant_mixed --prompt "Who are you?" --json
python scripts/chat.py --url http://127.0.0.1:8000/v1
python scripts/chat.py agent_tuned --tools arithmetic --canned tools.yaml
python scripts/chat.py moss --plugins calculate,solve,search

In the terminal /help lists the commands. Without a terminal each line of stdin is handled as if
it were typed. With --prompt or --file each prompt is answered on its own; the exit status is 1 if
one has no answer. Answers go to stdout, everything else to stderr.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from rich.text import Text

from snaketune.chat.batch import Prompt, PromptResult, answer_all, read_prompts, text_prompt
from snaketune.chat.chat_history import ChatHistory
from snaketune.chat.chat_session import ChatSession, handle_lines
from snaketune.chat.connect import ModelPair, other_model, our_model
from snaketune.chat.line_editor import run_line_editor
from snaketune.chat.tool_user import ToolOptions, ToolUser, require_tools, show_event
from snaketune.client.answer import GenerationSettings
from snaketune.client.chat_client import ChatClient
from snaketune.core import cli
from snaketune.core.errors import UserError
from snaketune.core.layout import EXPERIMENTS, LOGS
from snaketune.core.progress import track_progress
from snaketune.core.terminal import CtrlC, ends_cleanly, foreground, keys_kept
from snaketune.core.text import encodable, printable
from snaketune.experiment import load_studies
from snaketune.serving.artifacts import find_models
from snaketune.serving.lifetime import end_with_snakemake
from snaketune.serving.model_names import named_models, read_model
from snaketune.toolbox import BUILTIN_TOOLS

Wrapper = Callable[[ChatClient], ChatClient]
"""Puts tools or plugins around a model."""


def main(argv: Sequence[str] | None = None) -> None:
    """Start a chat session or answer prompts."""
    args = _parser().parse_args(argv)
    cli.open_log(None)
    # bytes that are not UTF-8 become replacement characters, not an exception in mid-chat
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    prompts = _prompts(args)
    if args.json and not prompts:
        raise UserError("--json needs prompts.\n  Fix: add --prompt TEXT or --file FILE.")
    wrapper = _wrapper(args, show=not prompts)
    end_with_snakemake()
    try:
        _chat(prompts, args, wrapper)
    except BrokenPipeError:  # the reader of the answers has ended, e.g. `| head -1`
        # else Python fails again when it flushes stdout at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None


def _chat(prompts: list[Prompt], args: argparse.Namespace, wrapper: Wrapper | None) -> None:
    """Answer the prompts, or start a session with whatever stdin is."""
    interactive = not prompts and sys.stdin.isatty() and sys.stdout.isatty()
    with ends_cleanly(), _terminal_taken(interactive), _connected(args) as pair:
        if wrapper:
            pair = ModelPair(wrapper(pair.model), wrapper(pair.base) if pair.base else None)
        if prompts:
            _answer(prompts, pair, args)
        else:
            _run_session(pair, args, interactive)


@contextmanager
def _terminal_taken(interactive: bool) -> Iterator[None]:
    """Take the terminal's keys; a script, and what it pipes the answers to, keep theirs."""
    if not interactive:
        yield
        return
    with foreground(), keys_kept():
        yield


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("experiment", nargs="?", help="an experiment, X/iter_N for a kept checkpoint, or a base")
    add("--model", help="X/iter_N or iter_N; with --url the model's id there")
    add("--bits", type=int, choices=(4, 8), help="quantise the base to 4 or 8 bits")
    add("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of the weights")
    add("--url", help="use this OpenAI-compatible server; its key is in OPENAI_API_KEY")
    add("--base", help="with --url: the model to compare with")
    batch = parser.add_argument_group("prompts from a script").add_argument
    batch("--prompt", action="append", default=[], help="a prompt; may be repeated")
    batch("--file", type=Path, help="one prompt per line, as JSON if the name ends in .jsonl")
    batch("--json", action="store_true", help="print one line of JSON per prompt")
    tools = parser.add_argument_group("tools (with greedy answers) or plugins").add_argument
    tools("--tools", default="", help=f"comma-separated: {', '.join(BUILTIN_TOOLS)}")
    tools("--canned", type=Path, help="a YAML file of further tools with canned answers")
    tools("--max-turn", type=_positive, default=7, help="model turns per prompt (default 7)")
    tools("--plugins", default="", help="of a model tuned on MOSS: calculate,solve,search")
    generation = parser.add_argument_group("generation").add_argument
    generation("--compare", action="store_true", help="also show the base model's answers")
    generation("--system", help="system text (default: the experiment's own)")
    generation("--temperature", type=_between(0, 2), default=0.0, help="0 (default) is greedy")
    generation("--top-p", type=_between(0, 1), help="nucleus sampling: total probability")
    generation("--max-new-tokens", type=_positive, default=512, help="longest answer (default 512)")
    generation("--seed", type=int, help="of the sampling")
    generation("--stop", action="append", default=[], help="stop string; may be repeated")
    return parser


def _between(lower: float, upper: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        if lower <= (value := float(text)) <= upper:
            return value
        raise argparse.ArgumentTypeError(f"{text} is not between {lower} and {upper}")

    return number


def _positive(text: str) -> int:
    if (value := int(text)) > 0:
        return value
    raise argparse.ArgumentTypeError(f"{text} is not positive")


def _prompts(args: argparse.Namespace) -> list[Prompt]:
    return [*map(text_prompt, args.prompt), *(read_prompts(args.file) if args.file else [])]


def _wrapper(args: argparse.Namespace, show: bool) -> Wrapper | None:
    """Choose the tools or plugins around a model; None for a plain model.

    Args:
        show: Whether calls are printed as they happen.
    """
    tools = _tool_options(args)
    if tools and args.plugins:
        raise UserError(
            "--tools and --plugins cannot be combined.\n"
            "  Fix: --plugins for a model tuned on MOSS, --tools for any other"
        )
    if tools:
        return partial(ToolUser, options=tools, show=show_event if show else None)
    if not args.plugins.strip():
        return None
    # optional: nothing else of SnakeTune knows MOSS's plugins
    from snaketune.moss.plugin_user import PluginUser, show_call
    from snaketune.moss.plugins import read_plugins

    enabled = read_plugins(args.plugins)
    return partial(PluginUser, enabled=enabled, show=show_call if show else None)


def _tool_options(args: argparse.Namespace) -> ToolOptions | None:
    """Read the tools; what is wrong with them is an error before a model is loaded."""
    names = [name for name in args.tools.replace(",", " ").split() if name]
    if not names and not args.canned:
        return None
    unusable = (args.temperature, args.top_p, args.seed, args.stop or None, args.system)
    if any(value is not None and value != 0 for value in unusable):
        raise UserError(
            "with tools a model answers greedily and has the system text of the tools.\n"
            "  Fix: leave out --temperature, --top-p, --seed, --stop and --system"
        )
    options = ToolOptions(names, args.canned, args.max_turn, _study(args))
    require_tools(options)
    return options


def _study(args: argparse.Namespace) -> str | None:
    """Find the experiment's study, whose MLflow experiment gets the traces."""
    names = named_models({"experiment": args.experiment, "model": args.model})
    if args.url or not names:
        return None
    experiment = load_studies(EXPERIMENTS).experiments.get(names[0].partition("/")[0])
    return experiment.study if experiment else None


@contextmanager
def _connected(args: argparse.Namespace) -> Iterator[ModelPair]:
    """Connect to the model that the arguments name, and to its base."""
    settings = GenerationSettings(
        args.temperature, args.top_p, args.max_new_tokens, args.seed, tuple(args.stop)
    )
    if args.url:
        yield other_model(args.url, args.model or args.experiment, args.base, settings)
        return
    name = _require_model({"experiment": args.experiment, "model": args.model})
    log = args.log or LOGS / "chat.log"
    with our_model(name, settings, log, bits=args.bits, precision=args.precision) as pair:
        yield pair


def _require_model(wanted: dict[str, str | None]) -> str:
    """Name the model that is wanted; the studies explain why one is missing."""
    names = named_models(wanted)
    try:
        if len(names) == 1:
            find_models(names)
            return names[0]
    except UserError:
        read_model(wanted, load_studies(EXPERIMENTS), "chat")
        raise  # the studies have such a model, but it is not built
    return read_model(wanted, load_studies(EXPERIMENTS), "chat")


def _answer(prompts: list[Prompt], pair: ModelPair, args: argparse.Namespace) -> None:
    """Print the answers to the prompts.

    Raises:
        UserError: One has no answer.
    """
    models = {"model": pair.model}
    if args.compare:
        if pair.base is None:
            raise UserError(
                "no base model to compare with.\n"
                "  Fix: chat with an experiment, or name the base of a --url: --base NAME"
            )
        models["base"] = pair.base
    out, failed = sys.stdout, 0  # rich's progress bar replaces sys.stdout
    results = answer_all(prompts, models, args.system, _report_error)
    for result in results if out.isatty() else _watched(results, len(prompts)):
        failed += not result.answered
        print(result.as_json() if args.json else result.as_text(), file=out, flush=True)
    if failed:
        raise UserError(f"{failed} of {len(prompts)} prompts have no answer.")


def _watched(results: Iterable[PromptResult], total: int) -> Iterator[PromptResult]:
    """Show on stderr how many prompts are answered."""
    with track_progress("answers", total, "prompts") as report:
        for done, result in enumerate(results, 1):
            report(done)
            yield result


def _run_session(pair: ModelPair, args: argparse.Namespace, interactive: bool) -> None:
    """Chat at the terminal, or handle the lines of stdin.

    Raises:
        UserError: A line of stdin failed.
    """
    history = ChatHistory(None if args.system is None else encodable(args.system))
    with CtrlC() if interactive else nullcontext() as ctrl_c:
        session = ChatSession(pair.model, pair.base, history, _remark, ctrl_c)
        if args.compare:
            session.handle("/compare on")
        if ctrl_c:
            _remark(_greeting(pair))
            run_line_editor(session, _remark, _report_error)
        elif not handle_lines(session, sys.stdin, _report_error):
            raise UserError("some lines have no answer.")


def _greeting(pair: ModelPair) -> str:
    context, settings = pair.model.context, pair.model.settings
    facts = [printable(pair.model.name)]
    facts += [f"{context.limit:,} tokens of context"] if context else []
    facts += [f"temperature {settings.temperature:g}" if settings.temperature else "greedy"]
    return f"{' · '.join(facts)}\nEnter sends, Alt-Enter breaks the line, /help, Ctrl-D quits."


def _remark(text: str) -> None:
    cli.console.print(Text(text, "dim"))


def _report_error(message: str) -> None:
    cli.console.print(Text.assemble(("Error:", "bold red"), " ", message))


if __name__ == "__main__":
    sys.exit(cli.run(main))
