"""Talk to an experiment's model in the terminal, or ask it from a script.

python scripts/chat.py assistant_mixed
python scripts/chat.py assistant_mixed --prompt "Who are you?" --json
python scripts/chat.py --url http://127.0.0.1:8000/v1
python scripts/chat.py agent_tuned --tools arithmetic --canned tools.yaml
python scripts/chat.py moss --plugins calculate,solve,search

In the terminal /help tells the commands. Without a terminal each line of the input is taken as if
it were typed. With --prompt or --file each prompt is answered by itself; the status is 1 if one is
not. Answers go to stdout and everything else to stderr.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from rich.text import Text

from snaketune.chat.batch import Prompt, answer_all, as_json, prompt, read_prompts
from snaketune.chat.connect import Pair, other_model, our_model
from snaketune.chat.conversation import Conversation
from snaketune.chat.model import ChatModel, Settings
from snaketune.chat.plugin_user import PluginUser, show_step
from snaketune.chat.plugins import read_plugins
from snaketune.chat.prompt import talk_at_prompt
from snaketune.chat.talk import Talk, take_lines
from snaketune.chat.text import encodable, printable
from snaketune.chat.tools import Tools, ToolUser, require_tools, show_event
from snaketune.core import cli
from snaketune.core.errors import UserError
from snaketune.core.progress import track_progress
from snaketune.core.terminal import CtrlC, ends_cleanly, foreground, keys_kept
from snaketune.experiment import load_studies
from snaketune.serving.artifacts import find_models
from snaketune.serving.lifetime import end_with_snakemake
from snaketune.serving.model_names import named_models, read_model

Using = Callable[[ChatModel], ChatModel]
"""Makes a model a user of tools or plugins."""


def main(argv: Sequence[str] | None = None) -> None:
    """Talk."""
    args = _parser().parse_args(argv)
    cli.open_log(None)
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    prompts = _prompts(args)
    if args.json and not prompts:
        raise UserError("--json answers prompts.\n  Fix: give --prompt TEXT or --file FILE.")
    using = _using(args, show=not prompts)
    end_with_snakemake()
    try:
        _converse(prompts, args, using)
    except BrokenPipeError:  # whoever reads the answers has enough of them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None


def _converse(prompts: list[Prompt], args: argparse.Namespace, using: Using | None) -> None:
    """Answer the prompts, or talk to whoever is at the other end of stdin."""
    interactive = not prompts and sys.stdin.isatty() and sys.stdout.isatty()
    with ends_cleanly(), _terminal_taken(interactive), _connected(args) as pair:
        if using:
            pair = Pair(using(pair.model), using(pair.base) if pair.base else None)
        if prompts:
            _answer(prompts, pair, args)
        else:
            _talk(pair, args, interactive)


@contextmanager
def _terminal_taken(interactive: bool) -> Iterator[None]:
    """Have the terminal's keys; a script and what it pipes answers to keep theirs."""
    if not interactive:
        yield
        return
    with foreground(), keys_kept():
        yield


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("experiment", nargs="?", help="an experiment, X/iter_N of a kept checkpoint, or a base")
    add("--model", help="X/iter_N or iter_N; with --url the model's name there")
    add("--bits", type=int, choices=(4, 8), help="hold the base in 4 or 8 bits")
    add("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of the weights")
    add("--url", help="talk to this OpenAI-compatible server; its key is in OPENAI_API_KEY")
    add("--base", help="with --url: the model that is compared with")
    ask = parser.add_argument_group("asking from a script").add_argument
    ask("--prompt", action="append", default=[], help="a prompt; may be given several times")
    ask("--file", type=Path, help="a prompt on each line, as JSON if the name ends in .jsonl")
    ask("--json", action="store_true", help="print a line of JSON for each prompt")
    call = parser.add_argument_group(
        "tools, with which it answers greedily; or plugins"
    ).add_argument
    call("--tools", default="", help="of arithmetic, arxiv, google, python; separated by commas")
    call("--canned", type=Path, help="a YAML file of further tools with their answers")
    call("--max-turn", type=_positive, default=7, help="turns for a question (default 7)")
    call("--plugins", default="", help="of a model tuned on MOSS: calculate,solve,search")
    make = parser.add_argument_group("how answers are made").add_argument
    make("--compare", action="store_true", help="the base model answers as well")
    make("--system", help="the system text; by default the experiment's own")
    make("--temperature", type=_between(0, 2), default=0.0, help="0 (default) is greedy: no chance")
    make("--top-p", type=_between(0, 1), help="sample of the likeliest tokens with this share")
    make("--max-new-tokens", type=_positive, default=512, help="longest answer (default 512)")
    make("--seed", type=int, help="of the sampling")
    make("--stop", action="append", default=[], help="end before this text; may be repeated")
    return parser


def _between(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        if least <= (value := float(text)) <= most:
            return value
        raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")

    return number


def _positive(text: str) -> int:
    if (value := int(text)) > 0:
        return value
    raise argparse.ArgumentTypeError(f"{text} is not positive")


def _prompts(args: argparse.Namespace) -> list[Prompt]:
    return [*map(prompt, args.prompt), *(read_prompts(args.file) if args.file else [])]


def _using(args: argparse.Namespace, show: bool) -> Using | None:
    """Return what makes a model a user of the tools or plugins that are asked for.

    Args:
        show: Whether what it does on its way is printed.
    """
    tools, plugins = _tools(args), read_plugins(args.plugins)
    if tools and plugins:
        raise UserError("--plugins are for models tuned on MOSS, --tools for others: give one.")
    if tools:
        return partial(ToolUser, tools=tools, show=show_event if show else None)
    if plugins:
        return partial(PluginUser, enabled=plugins, show=show_step if show else None)
    return None


def _tools(args: argparse.Namespace) -> Tools | None:
    """Return the tools that are asked for; what is wrong with them is told before a model loads."""
    names = [name for name in args.tools.replace(",", " ").split() if name]
    if not names and not args.canned:
        return None
    sampling = (args.temperature, args.top_p, args.seed, args.stop or None, args.system)
    if any(each is not None and each != 0 for each in sampling):
        raise UserError(
            "with tools a model answers greedily and to their system text.\n"
            "  Fix: leave out --temperature, --top-p, --seed, --stop and --system"
        )
    tools = Tools(names, args.canned, args.max_turn, _study(args))
    require_tools(tools)
    return tools


def _study(args: argparse.Namespace) -> str | None:
    """Return the study of the experiment that is talked to, whose traces MLflow gets."""
    names = named_models({"experiment": args.experiment, "model": args.model})
    if args.url or not names:
        return None
    studies = load_studies(Path("experiments"))
    experiment = studies.experiments.get(names[0].partition("/")[0])
    return experiment.study if experiment else None


@contextmanager
def _connected(args: argparse.Namespace) -> Iterator[Pair]:
    """Give the model that the arguments name, and its base."""
    settings = Settings(
        args.temperature, args.top_p, args.max_new_tokens, args.seed, tuple(args.stop)
    )
    if args.url:
        yield other_model(args.url, args.model or args.experiment, args.base, settings)
        return
    name = _require_model({"experiment": args.experiment, "model": args.model})
    log = args.log or Path("logs/chat.log")
    with our_model(name, settings, log, bits=args.bits, precision=args.precision) as pair:
        yield pair


def _require_model(asked: dict[str, str | None]) -> str:
    """Return the model that is asked for; what is not there is explained by the studies."""
    names = named_models(asked)
    try:
        if len(names) == 1:
            find_models(names)
            return names[0]
    except UserError:
        read_model(asked, load_studies(Path("experiments")), "chat")
        raise  # there is such a model, and it is not built
    return read_model(asked, load_studies(Path("experiments")), "chat")


def _answer(prompts: list[Prompt], pair: Pair, args: argparse.Namespace) -> None:
    """Answer the prompts on stdout.

    Raises:
        UserError: One has no answer.
    """
    speakers = {"model": pair.model} | ({"base": pair.base} if args.compare else {})
    if None in speakers.values():
        raise UserError(
            "there is no base model to compare with.\n"
            "  Fix: ask an experiment, or with --url name it: --base NAME"
        )
    out, failed = sys.stdout, 0  # a progress bar takes sys.stdout for itself
    results = answer_all(prompts, speakers, args.system, _complain)
    for result in results if out.isatty() else _watched(results, len(prompts)):
        ran_out = result.get("finished") is False  # an agent's turns
        failed += ran_out or any("error" in each for each in (result, result.get("base", {})))
        print(as_json(result) if args.json else _as_text(result), file=out, flush=True)
    if failed:
        raise UserError(f"{failed} of {len(prompts)} prompts have no answer.")


def _watched(results: Iterable[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """Yield the results, and tell on stderr how many there are."""
    with track_progress("answers", total, "prompts") as tell:
        for done, result in enumerate(results, 1):
            tell(done)
            yield result


def _as_text(result: dict[str, Any]) -> str:
    """Return what people read of a result: the answer, with names if there are two."""
    answers = [result.get("base"), result]
    named = [(each["model"], each["answer"] or "") for each in answers if each]
    if len(named) == 1:
        return printable(named[0][1])
    return "\n".join(f"{name}:\n{printable(answer)}" for name, answer in named)


def _talk(pair: Pair, args: argparse.Namespace, interactive: bool) -> None:
    """Talk at the terminal, or take the lines of the input.

    Raises:
        UserError: A line of the input has no answer.
    """
    conversation = Conversation(None if args.system is None else encodable(args.system))
    with CtrlC() if interactive else nullcontext() as ctrl_c:
        talk = Talk(pair.model, pair.base, conversation, _tell, ctrl_c)
        if args.compare:
            talk.take("/compare on")
        if ctrl_c:
            _tell(_greeting(pair))
            talk_at_prompt(talk, _tell, _complain)
        elif not take_lines(talk, sys.stdin, _complain):
            raise UserError("not every line has an answer.")


def _greeting(pair: Pair) -> str:
    context, settings = pair.model.context, pair.model.settings
    about = [pair.model.name]
    about += [f"{context.limit:,} tokens of context"] if context else []
    about += [f"temperature {settings.temperature:g}" if settings.temperature else "greedy"]
    return f"{' · '.join(about)}\nEnter sends, Alt-Enter begins a new line, /help, Ctrl-D ends."


def _tell(remark: str) -> None:
    cli.console.print(Text(remark, "dim"))


def _complain(message: str) -> None:
    cli.console.print(Text.assemble(("Error:", "bold red"), " ", message))


if __name__ == "__main__":
    sys.exit(cli.run(main))
