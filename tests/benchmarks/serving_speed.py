"""Measure answers of our server beside `transformers serve`, taking turns in one run.

python tests/benchmarks/serving_speed.py X [--tokens 128] [--rounds 5]

X is an experiment that has an adapter and a merged model. Ours puts the adapter onto the base,
unmerged; transformers serves the merged model. Both answer the same question greedily, streamed,
through OpenAI's client. Prints medians: seconds to the first piece, and tokens/s after it.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai

from snaketune.serving.server_process import model_server

QUESTION = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]
PORT = 8765


@contextlib.contextmanager
def peer(folder: Path) -> Iterator[openai.OpenAI]:
    """Serve a folder with transformers' own command."""
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", "--host", "127.0.0.1", "--port", str(PORT), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="none", max_retries=0)
    try:
        while True:
            with contextlib.suppress(openai.APIConnectionError):
                client.models.list()
                break
            time.sleep(0.5)
        yield client
    finally:
        process.terminate()
        process.wait()


def measure(client: openai.OpenAI, model: str, tokens: int) -> tuple[float, float]:
    """Return seconds to the first piece of an answer, and tokens/s after it."""
    started = time.perf_counter()
    asked = {"model": model, "messages": QUESTION, "max_tokens": tokens, "temperature": 0}
    first = 0.0
    for chunk in client.chat.completions.create(**asked, stream=True):
        if not first and chunk.choices[0].delta.content:
            first = time.perf_counter()
    count = chunk.usage.completion_tokens
    return first - started, (count - 1) / (time.perf_counter() - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    merged = Path("experiments", args.experiment, "merged")
    log = Path("logs/serving_speed.log")
    with model_server([args.experiment], log) as ours, peer(merged) as theirs:
        pairs = [(ours.client, args.experiment), (theirs, str(merged))]
        for client, model in pairs:
            measure(client, model, 8)  # loads it
        rounds = [
            [measure(client, model, args.tokens) for client, model in pairs]
            for _ in range(args.rounds)
        ]
    names = ("SnakeTune", "transformers serve")
    medians = [
        [statistics.median(each[side][figure] for each in rounds) for figure in (0, 1)]
        for side in (0, 1)
    ]
    for name, (first, speed) in zip(names, medians, strict=True):
        print(f"{name:20} first piece {first:.2f} s, then {speed:.1f} tokens/s")
    print(f"ratio of tokens/s: {medians[0][1] / medians[1][1]:.2f}")


if __name__ == "__main__":
    main()
