"""What a column that is not used would have told: by its name, in the spellings that data has.

options, choice_a, A and B         choices      a question without them is another question
passage, documents, evidence       passage
images, audio_path                 media        text alone can be learned
chosen, rejected                   preference   two replies, of which one is not wanted
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from loracle.data.reading.choice_rows import CHOICE_COLUMNS, LETTERS
from loracle.data.reading.names import plain_name

Meaning = Literal["choices", "passage", "asked", "system", "history", "media", "rejected"]

_PASSAGES = (
    *("context", "ctx", "passage", "article", "paragraph", "document", "doc", "evidence", "fact"),
    *("knowledge", "knowledge_base", "background", "support", "supporting_fact", "hint", "table"),
    *("supporting_text", "supporting_document", "dialogue", "dialog", "story", "premise", "chunk"),
    *("hypothesis", "reference_text", "source_text", "source_document", "retrieved_context"),
    *("retrieved_document", "retrieved_passage", "retrieved_chunk", "snippet", "schema", "lecture"),
    *("sql_context", "transcript", "material", "scenario", "situation", "search_result", "memory"),
    *("reference_document", "reference_passage", "external_knowledge", "conversation_context"),
    *("背景", "材料", "文章", "原文", "段落", "上下文", "参考资料", "资料", "知识", "表格", "提示"),
    *("文档", "对话", "证据", "事实"),
)
_ASKED = ("input", "instruction", "question", "query", "prompt", "problem", "task", "request")
_ASKED_ZH = ("输入", "指令", "问题", "题目")
_SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction", "sys_prompt")
_HISTORIES = ("history", "chat_history", "dialog_history", "dialogue_history", "previous_turn")
_HISTORIES_2 = ("conversation_history", "previous_message", "past_turn", "历史", "对话历史")
_MEDIA = re.compile(
    r"^(?:image|img|picture|photo|figure|audio|video|speech|voice|pixel_value|图片|图像|音频|视频)s?"
    r"(?:_?(?:path|url|uri|file|filename|file_name|byte|id|list|data|base64|b64|[0-9]+))?s?$"
)
_CHOICES = re.compile(
    r"^(?:option|choice|candidate|candidate_answer|answer_choice|answer_option|ending|distractor|"
    r"alternative|answer_?[a-d]|incorrect_answer|wrong_answer|opt|sol|mc[0-9]_target|选项|候选)s?"
    r"(?:_?(?:[a-j]|[0-9]+|text|list))?$"
)
_REJECTED = re.compile(
    r"^(?:(?:rejected|dispreferred|losing|worse)(?:_(?:response|answer|output|message|reply|"
    r"completion))?|(?:response|answer|output|reply)_rejected)s?$"
)
_CHOSEN = re.compile(
    r"^(?:(?:chosen|preferred|winning|better)(?:_(?:response|answer|output|message|reply|"
    r"completion))?|(?:response|answer|output|reply)_chosen)s?$"
)
_BY_NAME: dict[str, Meaning] = {
    **dict.fromkeys((*_PASSAGES, *(f"{name}s" for name in _PASSAGES)), "passage"),
    **dict.fromkeys((*_ASKED, *(f"{name}s" for name in _ASKED), *_ASKED_ZH), "asked"),
    **dict.fromkeys((*_SYSTEMS, *(f"{name}s" for name in _SYSTEMS)), "system"),
    **dict.fromkeys((*_HISTORIES, *_HISTORIES_2), "history"),
    **dict.fromkeys((f"{name}s" for name in (*_HISTORIES, *_HISTORIES_2)), "history"),
    "dialogues": "passage",
    "facts1": "passage",
    "fact1": "passage",
    "fact2": "passage",
}
_SINGLE_DIGITS = frozenset("1234")
_SINGLE_LETTERS = frozenset({*LETTERS[:5], *LETTERS[:5].lower()})


def meaning_of(column: str) -> Meaning | None:
    """What a column tells of what is asked, or None where its name does not say that it does."""
    column = unicodedata.normalize("NFKC", column)
    name = plain_name(column)
    if name in _BY_NAME:
        return _BY_NAME[name]
    if column in _SINGLE_DIGITS:
        return "choices"
    if _MEDIA.match(name):
        return "media"
    if _REJECTED.match(name):
        return "rejected"
    if _CHOICES.match(name) or (column in CHOICE_COLUMNS and column not in _SINGLE_LETTERS):
        return "choices"
    return "choices" if column in _SINGLE_LETTERS else None


def is_chosen(column: str) -> bool:
    """Whether a column holds the wanted one of two replies."""
    return _CHOSEN.match(plain_name(column)) is not None
