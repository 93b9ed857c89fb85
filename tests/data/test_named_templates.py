"""XTuner's templates: golden strings of two turns, what of them is learned between ⟦ and ⟧."""

import pytest
from tokenizers import pre_tokenizers

from conftest import save_tokenizer
from data.conftest import bracketed
from snaketune.data.conversation import Conversation, RowError
from snaketune.data.data_report import decode
from snaketune.data.named_templates import NAMED_TEMPLATES, XTUNER
from snaketune.data.names import TemplateName
from snaketune.data.template import ChatTemplate

MARKS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<eoa>", "<｜end▁of▁sentence｜>"]
MARKS += ["<end_of_turn>", "<|END_OF_TURN_TOKEN|>", "<|eot_id|>", "<|end|>"]

IM = (
    "<s><|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    "⟦A<|im_end|>⟧\n<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n⟦B<|im_end|>⟧\n"
)
INST = "<s>[INST] S [/INST]\n[INST] Q [/INST]⟦A</s>⟧\n<s>[INST] R [/INST]⟦B</s>⟧\n"
CURIOUS = (
    "<s>A chat between a curious user and an artificial intelligence assistant. The assistant "
    "gives helpful, detailed, and polite answers to the user's questions. S\n "
    "USER: Q ASSISTANT:⟦A</s>⟧\n<s>USER: R ASSISTANT:⟦B</s>⟧\n"
)
CODER = (
    "<s>You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by "
    "DeepSeekCompany, and you only answer questions related to computer science. For politically "
    "sensitive questions, security and privacy issues, and other non-computer science questions, "
    "you will refuse to answer. S\n### Instruction:\nQ\n### Response:\n⟦A</s>⟧\n"
    "<s>### Instruction:\nR\n### Response:\n⟦B</s>⟧\n"
)
GOLDEN = {
    "default": "<s><|System|>:S\n<|User|>:Q\n<|Bot|>:⟦A</s>⟧\n<s><|User|>:R\n<|Bot|>:⟦B</s>⟧\n",
    "zephyr": "<s><|system|>\nS\n<|user|>\nQ\n<|assistant|>\n⟦A</s>⟧\n"
    "<s><|user|>\nR\n<|assistant|>\n⟦B</s>⟧\n",
    "internlm_chat": "<s><|System|>:S\n<|User|>:Q<eoh>\n<|Bot|>:⟦A<eoa>⟧\n"
    "<|User|>:R<eoh>\n<|Bot|>:⟦B<eoa>⟧\n",
    "internlm2_chat": IM,
    "qwen_chat": IM,
    "minicpm3": IM,
    "moss_sft": "<s>S\n<|Human|>: Q<eoh>\n⟦A</s>⟧\n<s><|Human|>: R<eoh>\n⟦B</s>⟧\n",
    "llama2_chat": "<s>[INST] <<SYS>>\n You are a helpful, respectful and honest assistant. "
    "Always answer as helpfully as possible, while being safe. Your answers should not include "
    "any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. Please ensure "
    "that your responses are socially unbiased and positive in nature.\nS\n<</SYS>>\n [/INST] "
    "[INST] Q [/INST]⟦A</s>⟧\n<s>[INST] R [/INST]⟦B</s>⟧\n",
    "code_llama_chat": "<s>S\n[INST] Q [/INST]⟦A</s>⟧<s>[INST] R [/INST]⟦B</s>⟧",
    "chatglm2": "<s>S\n[Round 1]\n\n问：Q\n\n答：⟦A</s>⟧\n\n"
    "<s>[Round 2]\n\n问：R\n\n答：⟦B</s>⟧\n\n",
    "chatglm3": "<s><|system|>\nS<|user|>\nQ<|assistant|>\n⟦A</s>⟧\n"
    "<s><|user|>\nR<|assistant|>\n⟦B</s>⟧\n",
    "baichuan_chat": "<s>S\n<reserved_102>Q<reserved_103>⟦A</s>⟧\n"
    "<s><reserved_102>R<reserved_103>⟦B</s>⟧\n",
    "baichuan2_chat": "<s>S\n<reserved_106>Q<reserved_107>⟦A</s>⟧\n"
    "<s><reserved_106>R<reserved_107>⟦B</s>⟧\n",
    "wizardlm": CURIOUS,
    "vicuna": CURIOUS,
    "wizardcoder": "<s>Below is an instruction that describes a task. Write a response that "
    "appropriately completes the request.\n\nS\n ### Instruction:\nQ\n\n### Response:⟦A</s>⟧\n\n"
    "<s>### Instruction:\nR\n\n### Response:⟦B</s>⟧\n\n",
    "deepseek_coder": CODER,
    "deepseekcoder": CODER,
    "deepseek_moe": INST,
    "mistral": INST,
    "mixtral": INST,
    "deepseek_v2": "<s>S\n\nUser: Q\n\nAssistant: ⟦A<｜end▁of▁sentence｜>⟧"
    "User: R\n\nAssistant: ⟦B<｜end▁of▁sentence｜>⟧",
    "gemma": "<s><start_of_turn>system\nS<end_of_turn>\n<start_of_turn>user\nQ<end_of_turn>\n"
    "<start_of_turn>model\n⟦A<end_of_turn></s>⟧\n"
    "<s><start_of_turn>user\nR<end_of_turn>\n<start_of_turn>model\n⟦B<end_of_turn></s>⟧\n",
    "cohere_chat": "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Q<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦A<|END_OF_TURN_TOKEN|>⟧"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>R<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦B<|END_OF_TURN_TOKEN|>⟧",
    "llama3_chat": "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦A<|eot_id|>⟧"
    "<|start_header_id|>user<|end_header_id|>\n\nR<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦B<|eot_id|>⟧",
    "phi3_chat": "<s><|system|>\nS<|end|>\n<|user|>\nQ<|end|>\n<|assistant|>\n⟦A<|end|>⟧\n"
    "<|user|>\nR<|end|>\n<|assistant|>\n⟦B<|end|>⟧\n",
}
MINICPM = "<s><用户> Q <AI>⟦A</s>⟧\n<s><用户> R <AI>⟦B</s>⟧\n"

TURNS = [
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "R"},
    {"role": "assistant", "content": "B"},
]
SYSTEM = {"role": "system", "content": "S"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xtuner") / "base"
    words = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", behavior="isolated"),
            pre_tokenizers.Split(":", behavior="isolated"),
            pre_tokenizers.Split(" ", behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    save_tokenizer(folder, words, MARKS, "", eos="</s>", bos="<s>")
    return folder


def shown(folder, name, messages):
    template = ChatTemplate(folder, name)
    text, spans = template.render_with_spans(Conversation(messages))
    [encoded] = template.tokenise([text], [spans])
    return bracketed([part.model_dump() for part in decode(template, encoded)])


@pytest.mark.parametrize("name", GOLDEN)
def test_two_turns_with_a_system_message_are_golden(folder, name):
    assert shown(folder, name, [SYSTEM, *TURNS]) == GOLDEN[name]


@pytest.mark.parametrize("name", [name for name in GOLDEN if "curious" not in GOLDEN[name]])
def test_without_a_system_message_its_part_is_missing(folder, name):
    system = XTUNER[name].system.replace("{system}", "S")
    assert shown(folder, name, TURNS) == GOLDEN[name].replace(system, "", 1)


def test_template_without_system_message_rejects_one(folder):
    assert shown(folder, "minicpm", TURNS) == MINICPM
    with pytest.raises(RowError, match="no place for a system message"):
        shown(folder, "minicpm", [SYSTEM, *TURNS])


def test_every_name_is_pinned_and_in_the_schema():
    assert set(GOLDEN) | {"minicpm"} == set(XTUNER)
    assert set(TemplateName.__args__) == {"auto", *NAMED_TEMPLATES}
