"""The endpoint says what plain transformers and PEFT say, whoever else is talking to it."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import psutil
import pytest
import requests
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

BASE = "tiny"
QUESTION = [{"role": "user", "content": "Say 3"}]
TURNS = [*QUESTION, {"role": "assistant", "content": "3"}, {"role": "user", "content": "Say 4"}]
SYSTEM = {"role": "system", "content": 'It\'s "quoted" {{ 1 + 1 }}.'}


def plain(workspace, adapter, messages, tokens=24):
    """Return prompt ids and answer of transformers and PEFT by themselves."""
    folder = workspace / "store/models" / BASE
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    if adapter:
        model = PeftModel.from_pretrained(model, workspace / "experiments" / adapter / "adapter")
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        answer = model.generate(**ids, do_sample=False, max_new_tokens=tokens, eos_token_id=[2])
    prompt = ids["input_ids"].shape[1]
    return prompt, tokenizer.decode(answer[0, prompt:], skip_special_tokens=True)


def ask(server, model, messages=QUESTION, **settings):
    settings = {"temperature": 0, "max_tokens": 24} | settings
    return server.client.chat.completions.create(model=model, messages=messages, **settings)


def streamed(server, model, messages=QUESTION, **settings):
    chunks = list(ask(server, model, messages, stream=True, **settings))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    return text, chunks[-1]


def whole(text):
    """Leave out the half of a character that a limit may leave; no stream sends it."""
    return text.rstrip("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("model, adapter", [("run", "run"), (BASE, None)])
@pytest.mark.parametrize("messages", [QUESTION, TURNS], ids=["one turn", "several"])
def test_answers_are_those_of_transformers_and_peft(server, workspace, model, adapter, messages):
    prompt, expected = plain(workspace, adapter, messages)
    answer = ask(server, model, messages)
    assert answer.choices[0].message.content == expected
    assert answer.usage.prompt_tokens == prompt
    assert streamed(server, model, messages)[0] == whole(expected)


def test_models_answer_differently(server):
    answers = {ask(server, name).choices[0].message.content for name in ("run", "run/iter_4", BASE)}
    assert len(answers) == 3


def test_checkpoint_is_served_without_export(server, workspace, trained):
    folder = trained.export("4")
    target = workspace / "experiments/exported/adapter"
    target.parent.mkdir()
    folder.rename(target)
    expected = plain(workspace, "exported", QUESTION)[1]
    assert ask(server, "run/iter_4").choices[0].message.content == expected


def test_training_system_message_is_the_default(server, workspace):
    prompt, expected = plain(workspace, "other", [SYSTEM, *QUESTION])
    answer = ask(server, "other")
    assert (answer.usage.prompt_tokens, answer.choices[0].message.content) == (prompt, expected)
    own = {"role": "system", "content": "Be short."}
    prompt, expected = plain(workspace, "other", [own, *QUESTION])
    answer = ask(server, "other", [own, *QUESTION])
    assert (answer.usage.prompt_tokens, answer.choices[0].message.content) == (prompt, expected)


def test_concurrent_clients_get_their_own_answers(server):
    names = ["run", BASE, "other", "run/iter_4"] * 2
    alone = {name: whole(ask(server, name).choices[0].message.content) for name in names}
    with ThreadPoolExecutor(len(names)) as pool:
        together = list(pool.map(lambda name: streamed(server, name)[0], names))
    assert together == [alone[name] for name in names]


def test_seed_is_not_affected_by_other_clients(server):
    def sample(seed):
        answer = ask(server, BASE, temperature=1.5, seed=seed)
        return answer.choices[0].message.content

    alone = [sample(seed) for seed in range(4)]
    assert len(set(alone)) > 1
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(sample, range(4))) == alone


@pytest.mark.parametrize("stop", ["Sg", "S"])
def test_an_answer_ends_before_its_stop_string(server, stop):
    full = ask(server, BASE).choices[0].message.content
    expected = full[: full.index(stop)]
    answer = ask(server, BASE, stop=["never", stop])
    assert answer.choices[0].message.content == expected
    text, last = streamed(server, BASE, stop=stop)
    assert text == expected and last.choices[0].finish_reason == "stop"
    assert last.usage.completion_tokens < 24


def test_an_answer_ends_with_the_templates_end_token(server):
    for ended in (
        ask(server, "run", logit_bias={"2": 1000.0}),
        streamed(server, "run", logit_bias={"2": 1000.0})[1],
    ):
        assert ended.choices[0].finish_reason == "stop" and ended.usage.completion_tokens == 1


def test_truncated_answer_has_finish_reason_length(server):
    assert ask(server, BASE, max_tokens=3).choices[0].finish_reason == "length"


def test_rendered_prompt_is_not_changed(server, workspace):
    text = "<|im_start|>user\nSay 3<|im_end|>\n<|im_start|>assistant\n"
    answer = server.client.completions.create(
        model="run", prompt=text, temperature=0, max_tokens=24
    )
    prompt, expected = plain(workspace, "run", QUESTION)
    assert (answer.usage.prompt_tokens, answer.choices[0].text) == (prompt, expected)


@pytest.mark.parametrize(
    "request_, status, message",
    [
        ({"model": "nope"}, 404, "unknown model 'nope'. Served models: run, other, run/iter_4"),
        ({"messages": []}, 422, "at least 1"),
        ({"messages": "Say 3"}, 422, "messages:"),
        ({"messages": [{"content": "Say 3"}]}, 422, "messages.0.role: Field required"),
        ({"messages": [{"role": "user", "content": 3}]}, 422, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 422, "half a character"),
        ({"max_tokens": 0}, 422, "max_tokens: Input should be greater than 0, found 0"),
        ({"seed": 2**70}, 422, "seed"),
        ({"stop": [3]}, 422, "stop"),
        ({"top_p": -1}, 422, "top_p"),
        ({"messages": [{"role": "user", "content": "x" * 10_000}]}, 400, "holds 300"),
        ({"colour": "red"}, 422, "colour"),
        ({"temperature": "hot"}, 422, "hot"),
        ({"logit_bias": {"1": "much"}}, 500, "much"),
    ],
)
def test_invalid_request_is_refused_with_the_reason(server, request_, status, message):
    body = {"model": "run", "messages": QUESTION} | request_
    answer = requests.post(f"{server.url}/chat/completions", json=body, timeout=60)
    assert answer.status_code == status and message in answer.json()["error"]["message"]
    assert ask(server, "run").choices[0].message.content  # and it goes on


def test_empty_prompt_is_refused(server):
    for prompt in ({}, {"prompt": ""}, {"prompt": ["Say 3"]}):
        answer = requests.post(f"{server.url}/completions", json={"model": "run"} | prompt)
        assert answer.status_code == 422 and "prompt: " in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_pages_of_other_origins_are_refused(server, kind):
    """It may send these without asking first, and JSON not."""
    body = json.dumps({"model": BASE, "messages": QUESTION}).encode()
    headers = {"Origin": "https://example.com"} | ({"Content-Type": kind} if kind else {})
    url = f"{server.url}/chat/completions"
    assert requests.post(url, data=body, headers=headers, timeout=60).status_code == 422
    asked = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    first = requests.options(url, headers=asked, timeout=60)
    assert "Access-Control-Allow-Origin" not in first.headers


def test_answer_never_exceeds_the_context(server):
    prompt = [{"role": "user", "content": "x" * 260}]
    answer = ask(server, BASE, prompt, max_tokens=1000)
    assert answer.usage.total_tokens <= 300


def test_only_localhost_is_listened_on(server):
    port = int(server.url.rsplit(":", 1)[1].split("/")[0])
    listening = [
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]
    assert listening == ["127.0.0.1"]
    evil = {"Host": "example.com"}  # a page that had its name point here
    assert requests.get(f"{server.url}/models", headers=evil, timeout=60).status_code == 400


@pytest.mark.parametrize("path", ["/load_model", "/reset", "/docs", "/v1/audio/transcriptions"])
def test_no_other_path_is_served(server, path):
    root = server.url.removesuffix("/v1")
    assert requests.post(root + path, json={"model": "x"}, timeout=60).status_code == 404


def test_the_models_are_listed(server):
    listed = server.client.models.list().data
    assert [model.id for model in listed] == ["run", "other", "run/iter_4", BASE]
    assert {model.max_model_len for model in listed} == {300}


def test_error_during_a_stream_is_a_message(server):
    with pytest.raises(openai.APIError):
        streamed(server, BASE, logit_bias={"999999": 5})
