"""Named chat templates: ChatML, and those of XTuner 0.1.23 with their exact strings.

`template: auto`, the tokenizer's own, is right for every model that was tuned to chat. The named
ones are for base models, and for adapters that must match one trained by XTuner.

To add one, put it into NAMED_TEMPLATES below; its name in the schema, in messages and in
docs/reference.md follows. Light to import, as the schema takes the names from here.
"""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class NamedTemplate:
    """A chat template as transformers takes it.

    Attributes:
        jinja: Its text.
        end_token: What ends an answer, "" for the EOS token. It must be one token of the
            tokenizer, or an answer could never end.
    """

    jinja: str
    end_token: str


@dataclass(frozen=True)
class TemplateTurn:
    """The fixed strings of one XTuner template.

    A turn is BOS, system (first turn alone), instruction, output, suffix, EOS, separator. Without
    `suffix_is_end`, EOS follows each answer and BOS begins each turn; with it, the suffix ends an
    answer, and BOS stands only at the beginning.
    """

    system: str
    instruction: str
    suffix: str = ""
    suffix_is_end: bool = False
    separator: str = "\n"

    def named_template(self) -> NamedTemplate:
        """Build the Jinja text.

        BOS comes before the system message, but only once a question begins the turn: hence the
        namespace that holds the message until then.
        """
        bos = "{{- bos_token -}}"
        if self.suffix_is_end:
            bos = f"{{%- if ns.round == 1 -%}}{bos}{{%- endif -%}}"
        eos = "" if self.suffix_is_end else " + eos_token"
        jinja = (
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
        return NamedTemplate(jinja, self.suffix)

    def _system(self) -> str:
        if not self.system:
            # a pinned text: it is part of the template's digest, and so of every run's id
            return "{{ raise_exception('it has no place for a system message') }}"
        return _filled(self.system, "ns.system")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _filled(text: str, content: str) -> str:
    """Write Jinja that prints a text with {system} or {input}, and {round}, filled in."""
    for name, value in (("{system}", content), ("{input}", content), ("{round}", "ns.round")):
        text = text.replace(name, f"\0{value}\0")
    # of the parts between the NULs, every second one is an expression
    parts = [part if number % 2 else _quoted(part) for number, part in enumerate(text.split("\0"))]
    printed = [part for part in parts if part != _quoted("")]
    return f"{{{{- {' ~ '.join(printed)} -}}}}" if text else ""


_IM = TemplateTurn(
    "<|im_start|>system\n{system}<|im_end|>\n",
    "<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n",
    "<|im_end|>",
    suffix_is_end=True,
)
_INST = TemplateTurn("[INST] {system} [/INST]\n", "[INST] {input} [/INST]")
_VICUNA = TemplateTurn(
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. {system}\n ",
    "USER: {input} ASSISTANT:",
)
_DEEPSEEK_CODER = TemplateTurn(
    "You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by "
    "DeepSeekCompany, and you only answer questions related to computer science. For politically "
    "sensitive questions, security and privacy issues, and other non-computer science questions, "
    "you will refuse to answer. {system}\n",
    "### Instruction:\n{input}\n### Response:\n",
)
_LLAMA2 = TemplateTurn(
    "[INST] <<SYS>>\n You are a helpful, respectful and honest assistant. Always answer as "
    "helpfully as possible, while being safe. Your answers should not include any harmful, "
    "unethical, racist, sexist, toxic, dangerous, or illegal content. Please ensure that your "
    "responses are socially unbiased and positive in nature.\n{system}\n<</SYS>>\n [/INST] ",
    "[INST] {input} [/INST]",
)

XTUNER: dict[str, TemplateTurn] = {
    "default": TemplateTurn("<|System|>:{system}\n", "<|User|>:{input}\n<|Bot|>:"),
    "zephyr": TemplateTurn("<|system|>\n{system}\n", "<|user|>\n{input}\n<|assistant|>\n"),
    "internlm_chat": TemplateTurn(
        "<|System|>:{system}\n", "<|User|>:{input}<eoh>\n<|Bot|>:", "<eoa>", suffix_is_end=True
    ),
    "internlm2_chat": _IM,
    "qwen_chat": _IM,
    "minicpm3": _IM,
    "moss_sft": TemplateTurn("{system}\n", "<|Human|>: {input}<eoh>\n"),
    "llama2_chat": _LLAMA2,
    "code_llama_chat": TemplateTurn("{system}\n", "[INST] {input} [/INST]", separator=""),
    "chatglm2": TemplateTurn(
        "{system}\n", "[Round {round}]\n\n问：{input}\n\n答：", separator="\n\n"
    ),
    "chatglm3": TemplateTurn("<|system|>\n{system}", "<|user|>\n{input}<|assistant|>\n"),
    "baichuan_chat": TemplateTurn("{system}\n", "<reserved_102>{input}<reserved_103>"),
    "baichuan2_chat": TemplateTurn("{system}\n", "<reserved_106>{input}<reserved_107>"),
    "wizardlm": _VICUNA,
    "vicuna": _VICUNA,
    "wizardcoder": TemplateTurn(
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
    "deepseek_v2": TemplateTurn(
        "{system}\n\n",
        "User: {input}\n\nAssistant: ",
        "<｜end▁of▁sentence｜>",
        suffix_is_end=True,
        separator="",
    ),
    "minicpm": TemplateTurn("", "<用户> {input} <AI>"),
    "gemma": TemplateTurn(
        "<start_of_turn>system\n{system}<end_of_turn>\n",
        "<start_of_turn>user\n{input}<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>",
    ),
    "cohere_chat": TemplateTurn(
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{system}<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{input}<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        suffix_is_end=True,
        separator="",
    ),
    "llama3_chat": TemplateTurn(
        "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\n{input}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        suffix_is_end=True,
        separator="",
    ),
    "phi3_chat": TemplateTurn(
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

NAMED_TEMPLATES = {"chatml": NamedTemplate(CHATML, "<|im_end|>")} | {
    name: turn.named_template() for name, turn in XTUNER.items()
}
