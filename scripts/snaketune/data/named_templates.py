"""Named chat templates as Jinja: ChatML, and those of XTuner 0.1.23 with their exact strings.

`template: auto`, the tokenizer's own, is right for every model that was tuned to chat. The named
ones are for base models, and for adapters that must match one trained by XTuner.
"""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """The fixed strings of one XTuner template.

    A turn is BOS, system (first turn alone), instruction, output, suffix, EOS, separator. Without
    `suffix_is_end` EOS follows each answer and BOS begins each turn; with it the suffix is the
    end, and BOS stands at the beginning alone.
    """

    system: str
    instruction: str
    suffix: str = ""
    suffix_is_end: bool = False
    separator: str = "\n"

    def jinja(self) -> str:
        """Return the template as a chat template that transformers can use."""
        bos = "{{- bos_token -}}"
        if self.suffix_is_end:
            bos = f"{{%- if ns.round == 1 -%}}{bos}{{%- endif -%}}"
        eos = "" if self.suffix_is_end else " + eos_token"
        return (
            "{%- set ns = namespace(round=0, system='') -%}"
            "{%- for message in messages -%}"
            "{%- if message.role == 'system' -%}{%- set ns.system = message.content -%}"
            "{%- elif message.role == 'assistant' -%}"
            f"{{{{- message.content + {_quoted(self.suffix)}{eos} + {_quoted(self.separator)} -}}}}"
            "{%- else -%}"
            f"{{%- set ns.round = ns.round + 1 -%}}{bos}"
            f"{{%- if ns.system -%}}{self._system()}{{%- set ns.system = '' -%}}{{%- endif -%}}"
            f"{_filled(self.instruction, 'message.content')}"
            "{%- endif -%}{%- endfor -%}"
        )

    def _system(self) -> str:
        if not self.system:
            return "{{ raise_exception('it has no place for a system message') }}"
        return _filled(self.system, "ns.system")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _filled(text: str, content: str) -> str:
    """Return Jinja that prints a text with {system} or {input}, and {round}, filled in."""
    for name, value in (("{system}", content), ("{input}", content), ("{round}", "ns.round")):
        text = text.replace(name, f"\0{value}\0")
    parts = [part if number % 2 else _quoted(part) for number, part in enumerate(text.split("\0"))]
    return (
        f"{{{{- {' ~ '.join(part for part in parts if part != _quoted(''))} -}}}}" if text else ""
    )


_IM = Turn(
    "<|im_start|>system\n{system}<|im_end|>\n",
    "<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n",
    "<|im_end|>",
    suffix_is_end=True,
)
_INST = Turn("[INST] {system} [/INST]\n", "[INST] {input} [/INST]")
_VICUNA = Turn(
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. {system}\n ",
    "USER: {input} ASSISTANT:",
)
_DEEPSEEK_CODER = Turn(
    "You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by "
    "DeepSeekCompany, and you only answer questions related to computer science. For politically "
    "sensitive questions, security and privacy issues, and other non-computer science questions, "
    "you will refuse to answer. {system}\n",
    "### Instruction:\n{input}\n### Response:\n",
)
_LLAMA2 = Turn(
    "[INST] <<SYS>>\n You are a helpful, respectful and honest assistant. Always answer as "
    "helpfully as possible, while being safe. Your answers should not include any harmful, "
    "unethical, racist, sexist, toxic, dangerous, or illegal content. Please ensure that your "
    "responses are socially unbiased and positive in nature.\n{system}\n<</SYS>>\n [/INST] ",
    "[INST] {input} [/INST]",
)

XTUNER: dict[str, Turn] = {
    "default": Turn("<|System|>:{system}\n", "<|User|>:{input}\n<|Bot|>:"),
    "zephyr": Turn("<|system|>\n{system}\n", "<|user|>\n{input}\n<|assistant|>\n"),
    "internlm_chat": Turn(
        "<|System|>:{system}\n", "<|User|>:{input}<eoh>\n<|Bot|>:", "<eoa>", suffix_is_end=True
    ),
    "internlm2_chat": _IM,
    "qwen_chat": _IM,
    "minicpm3": _IM,
    "moss_sft": Turn("{system}\n", "<|Human|>: {input}<eoh>\n"),
    "llama2_chat": _LLAMA2,
    "code_llama_chat": Turn("{system}\n", "[INST] {input} [/INST]", separator=""),
    "chatglm2": Turn("{system}\n", "[Round {round}]\n\n问：{input}\n\n答：", separator="\n\n"),
    "chatglm3": Turn("<|system|>\n{system}", "<|user|>\n{input}<|assistant|>\n"),
    "baichuan_chat": Turn("{system}\n", "<reserved_102>{input}<reserved_103>"),
    "baichuan2_chat": Turn("{system}\n", "<reserved_106>{input}<reserved_107>"),
    "wizardlm": _VICUNA,
    "vicuna": _VICUNA,
    "wizardcoder": Turn(
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n{system}\n ",
        "### Instruction:\n{input}\n\n### Response:",
        separator="\n\n",
    ),
    "deepseek_coder": _DEEPSEEK_CODER,
    "deepseekcoder": _DEEPSEEK_CODER,
    "deepseek_moe": _INST,
    "mistral": _INST,
    "mixtral": _INST,
    "deepseek_v2": Turn(
        "{system}\n\n",
        "User: {input}\n\nAssistant: ",
        "<｜end▁of▁sentence｜>",
        suffix_is_end=True,
        separator="",
    ),
    "minicpm": Turn("", "<用户> {input} <AI>"),
    "gemma": Turn(
        "<start_of_turn>system\n{system}<end_of_turn>\n",
        "<start_of_turn>user\n{input}<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>",
    ),
    "cohere_chat": Turn(
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{system}<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{input}<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        suffix_is_end=True,
        separator="",
    ),
    "llama3_chat": Turn(
        "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\n{input}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        suffix_is_end=True,
        separator="",
    ),
    "phi3_chat": Turn(
        "<|system|>\n{system}<|end|>\n",
        "<|user|>\n{input}<|end|>\n<|assistant|>\n",
        "<|end|>",
        suffix_is_end=True,
    ),
}

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

NAMED_TEMPLATES = {"chatml": CHATML} | {name: turn.jinja() for name, turn in XTUNER.items()}

END_TOKENS = {"chatml": "<|im_end|>"} | {
    name: turn.suffix for name, turn in XTUNER.items() if turn.suffix
}
"""What must be one token of the tokenizer, or an answer could never end."""
