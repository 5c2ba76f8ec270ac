"""The datasets of an axolotl file:

datasets:
  - path: data/chats.jsonl            a file, a folder, or a hub's dataset
    type: chat_template               how rows are read
    field_messages: conversations
    message_property_mappings: {role: from, content: value}
    split: train
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from loracle.migration.draft import Draft
from loracle.migration.places import Places, is_hub_id
from loracle.migration.rules import as_bool, as_list

_Entry = dict[str, Any]

# Their type -> our form and the columns that it reads under other names.
_TYPES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "alpaca": ("alpaca", {}),
    "alpaca_chat": ("alpaca", {}),
    "alpaca_w_system": ("alpaca", {}),
    "gpteacher": ("alpaca", {"output": "response"}),
    "alpaca_chat.load_qa": ("question_answer", {}),
    "alpaca_chat.load_camel_ai": (
        "prompt_completion",
        {"prompt": "message_1", "completion": "message_2"},
    ),
    "context_qa": ("question_answer", {"context": "article"}),
    "context_qa.load_v2": ("question_answer", {}),
    "summarizetldr": ("prompt_completion", {"prompt": "article", "completion": "summary"}),
    "sharegpt": ("sharegpt", {}),
}
_NO_MATTER = frozenset({"ds_type", "preprocess_shards", "chat_template", "trust_remote_code"})
_READ = frozenset(
    {
        *("path", "type", "data_files", "split", "name", "revision", "conversation"),
        *("field_messages", "message_property_mappings", "message_field_role"),
        *("message_field_content", "field_system", "field_tools", "roles", "roles_to_train"),
        "train_on_eos",
    }
)
_ROLES = {"user": {"human", "user"}, "assistant": {"gpt", "assistant", "model"}}


def add_datasets(draft: Draft, places: Places, key: str, section: str) -> None:
    """Put the datasets of one of their lists into a section of the plan."""
    value = draft.take(key)
    listed = value if isinstance(value, list) else [] if value is None else [value]
    for index, item in enumerate(listed):
        theirs = {"path": item} if isinstance(item, str) else item
        if not isinstance(theirs, Mapping) or not theirs.get("path"):
            draft.refuse(f"{key}[{index}]", "it has no path; add it to the plan by hand")
            continue
        label = f"{key}[{index}] {theirs['path']}"
        theirs = _sound(draft, label, theirs)
        form = _form(draft, label, theirs)
        for location in _locations(draft, places, label, theirs):
            entry = {**location, **form}
            if section == "evaluation" and "://" in entry["path"] and "split" not in entry:
                entry["split"] = "train"
            draft.keep_entry(label, section, entry)
        _rest(draft, label, theirs)


def _sound(draft: Draft, label: str, theirs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry without keys that should be mappings but are not."""
    wrong = {
        key
        for key in ("message_property_mappings", "roles")
        if theirs.get(key) is not None and not isinstance(theirs[key], Mapping)
    }
    for key in wrong:
        draft.refuse(f"{label} {key}: {theirs[key]}", "expected keys and values")
    return {str(key): value for key, value in theirs.items() if key not in wrong}


def _locations(draft: Draft, places: Places, label: str, theirs: Mapping[str, Any]) -> list[_Entry]:
    """The data's locations: an entry for each named file."""
    path = str(theirs["path"])
    files = as_list(theirs["data_files"]) if theirs.get("data_files") else []
    split = _split(draft, label, theirs)
    local = places.find(path)
    if local is None and is_hub_id(path):
        return _on_hub(draft, label, theirs, files, split)
    if files and (local is None or local.is_dir()):
        # `path: json` with data_files names a reader, `path: FOLDER` the folder they are in.
        names = files if local is None else [f"{path}/{file}" for file in files]
    else:
        names = [path]
    entries: list[_Entry] = []
    for name in names:
        found = places.find(name)
        if found is None and "://" not in name:
            draft.refuse(label, f"{name} was not found here; correct the path in the plan")
        elif "://" in name and not name.startswith("hf://"):
            draft.refuse(label, "download it, and name the file in the plan")
        if "split" in split and (found is None or found.is_file()):
            draft.not_needed.append(f"{label} split {split['split']} (of one file)")
            split = {key: value for key, value in split.items() if key != "split"}
        entries.append({"path": places.in_plan(found or name), **split})
    return entries


def _split(draft: Draft, label: str, theirs: Mapping[str, Any]) -> _Entry:
    """A split, and how many of its first rows are wanted: train[:500]."""
    if not theirs.get("split"):
        return {}
    text = str(theirs["split"])
    name, bracket, part = text.partition("[")
    first = re.fullmatch(r":(\d+)\]", part)
    if bracket and first is None:
        advice = "only a whole split or its first rows can be read; set `limit` in the plan"
        draft.refuse(f"{label} split: {text}", advice)
    return {"split": name, **({"limit": int(first[1])} if first else {})}


def _on_hub(
    draft: Draft, label: str, theirs: Mapping[str, Any], files: list[str], split: _Entry
) -> list[_Entry]:
    config = f":{theirs['name']}" if theirs.get("name") else ""
    revision = f"@{theirs['revision']}" if theirs.get("revision") else ""
    address = f"hf://{theirs['path']}{config}{revision}"
    if not files:
        return [{"path": address, **split}]
    if split:
        draft.not_needed.append(f"{label} split (files are named)")
    return [{"path": f"{address}/{file}"} for file in files]


def _form(draft: Draft, label: str, theirs: Mapping[str, Any]) -> _Entry:
    """How the rows are read: the format and the columns."""
    kind = theirs.get("type")
    if isinstance(kind, Mapping):
        return _own_fields(draft, label, kind)
    name = str(kind or "").partition(":")[0]
    if name == "chat_template":
        return _chats(draft, label, theirs)
    if name in _TYPES:
        form, columns = _TYPES[name]
        return _entry(form, columns)
    if name:
        draft.refuse(
            f"{label} type: {name}",
            "rows are read by their keys; use `loracle check` to see whether that is right, or "
            "set format and columns in the plan",
        )
    return {}


def _own_fields(draft: Draft, label: str, kind: Mapping[str, Any]) -> _Entry:
    """type: {field_instruction: ..., field_output: ..., format: ...}"""
    fields = {
        ours: str(kind[f"field_{ours}"])
        for ours in ("instruction", "input", "output", "system")
        if kind.get(f"field_{ours}")
    }
    if any(kind.get(key) for key in ("format", "no_input_format", "system_format")):
        reason = "rows are rendered by the model's own chat template"
        draft.note_change(f"{label} type.format", "the model's template", reason)
    if kind.get("system_prompt"):
        draft.refuse(f"{label} type.system_prompt", "write it into the rows, as their system")
    known = {"format", "no_input_format", "system_format", "system_prompt"}
    known |= {f"field_{name}" for name in ("instruction", "input", "output", "system")}
    for key in kind.keys() - known:
        draft.refuse(f"{label} type.{key}", "unknown here")
    return _entry("alpaca", fields)


def _chats(draft: Draft, label: str, theirs: Mapping[str, Any]) -> _Entry:
    """type: chat_template, whose turns may have other keys than role and content."""
    mapping = theirs.get("message_property_mappings") or {}
    role = mapping.get("role") or theirs.get("message_field_role") or "role"
    content = mapping.get("content") or theirs.get("message_field_content") or "content"
    field = str(theirs.get("field_messages") or "messages")
    columns = {
        ours: str(theirs[key])
        for ours, key in (("system", "field_system"), ("tools", "field_tools"))
        if theirs.get(key)
    }
    if (role, content) == ("role", "content"):
        return _entry("messages", {"messages": field, **columns})
    if (role, content) == ("from", "value"):
        return _entry("sharegpt", {"conversations": field, **columns})
    draft.refuse(
        f"{label} turns with {role} and {content}",
        "turns are read with role and content, or with from and value; rename them, or describe "
        "the file in a dataset_info.json (tags: role_tag, content_tag)",
    )
    return {}


def _entry(form: str, columns: Mapping[str, str]) -> _Entry:
    renamed = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    return {"format": form, "columns": renamed} if renamed else {"format": form}


def _rest(draft: Draft, label: str, theirs: Mapping[str, Any]) -> None:
    """Keys that change how rows are read or learned, beyond what an entry says."""
    trained = theirs.get("roles_to_train")
    if trained and set(as_list(trained)) - {"assistant", "gpt", "model"}:
        draft.refuse(
            f"{label} roles_to_train: {trained}", "only the assistant's turns are used for training"
        )
    if theirs.get("train_on_eos") not in (None, "turn"):
        draft.refuse(
            f"{label} train_on_eos: {theirs['train_on_eos']}",
            "each turn's end is used for training",
        )
    for role, names in (theirs.get("roles") or {}).items():
        if unknown := set(as_list(names)) - _ROLES.get(role, {role}):
            draft.refuse(
                f"{label} roles.{role}: {', '.join(sorted(unknown))}",
                "rename these roles in the rows, or name them in a dataset_info.json (tags)",
            )
    for key, value in theirs.items():
        if key in _READ or value is None or as_bool(value) is False:
            continue
        if key in _NO_MATTER:
            draft.not_needed.append(f"{label} {key}")
        else:
            draft.refuse(
                f"{label} {key}: {value}", "a plan has no such setting; change the file instead"
            )
