"""The command line in Chinese: help texts keyed by their English, messages by a short key.

A text that is missing here would be shown in English; a test checks that none is. Logs and the
bodies of errors are in English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from typer import rich_utils

from loracle.language import Language

MESSAGES: Mapping[str, Mapping[Language, str]] = {
    "error": {"en": "error: ", "zh": "错误："},
    "note": {"en": "note: ", "zh": "注意："},
    "left out": {"en": "left out: ", "zh": "已略去："},
    "damaged": {"en": "damaged: ", "zh": "已损坏："},
    "stopped": {
        "en": "{signal}: stopped. Run the same command again to resume.",
        "zh": "{signal}：已停止。再次运行同一命令即可继续。",
    },
    "next": {"en": "Next:", "zh": "接下来："},
    "the report": {"en": "the report", "zh": "报告"},
    "the reasons": {"en": "the reasons", "zh": "理由"},
    "the adapter": {"en": "the adapter", "zh": "导出适配器"},
}

# Headings in --help.
_PANELS = {
    "Start": "开始",
    "Data": "数据",
    "Results": "结果",
    "Share": "分享",
    "Messages": "消息",
    "Options": "选项",
    "Arguments": "参数",
}
_EXAMPLE = {"en": "Example: ", "zh": "示例："}
# Typer's own words in --help: of a default, and of what is required.
_TYPERS = {"en": ("[default: {}]", "[required]"), "zh": ("[默认：{}]", "[必填]")}

# The help of a command: its first line, then further paragraphs.
_COMMANDS = {
    "Estimate a run: tokens, hours, memory, disk, money.": "预估一次运行：token、时间、内存、磁盘、费用。",
    "Needs the model's config and tokenizer, not its weights. Exit code 1 if it does not fit.": "只需要模型的配置和分词器，不需要权重。退出码 1：放不下。",
    "Estimate training one model on one dataset: batches, hours.": "预估用一个模型在一个数据集上训练：批大小和时间。",
    "The dataset's own rows serve as the questions. Exit code 1 if it does not fit.": "用数据集自己的行充当评测题。退出码 1：放不下。",
    "Show what this machine has, what it lacks, and how to get it.": "说明这台机器有什么、缺什么，以及如何补上。",
    "Exit code 1 if something needs attention. HF_HUB_OFFLINE=1 keeps it off the network.": "退出码 1：有需要处理的问题。设置 HF_HUB_OFFLINE=1 时不建立任何连接。",
    "Tells which dataset is worth fine-tuning on.": "找出哪个数据集最值得用来微调。",
    "Fine-tune on every candidate and say which one to use.": "在每个候选数据集上微调，给出该用哪一个的结论。",
    "All candidates start from the same base and answer the same questions. Run the same command "
    "again to resume: finished trials are not run again.": "所有候选都从同一个基座模型出发，回答同一组问题。"
    "再次运行同一命令即可续跑：已完成的训练不会重来。",
    "Write a plan, for your files or from another tool's settings.": "写一份带注释的方案：为你的文件，或从其他工具的配置转换。",
    "With --from it lists what was kept, what changed, and what is not supported.": "用 --from 时会列出保留、更改和不支持的内容。",
    "Finish a run from its folder, whatever state it is in.": "从运行目录续跑，直到完成。",
    "A finished run loads no model. Plan, data and model must not have changed since the run started.": "已完成的运行不会加载模型。方案、数据和模型必须与开始时相同。",
    "Show the progress of a run, or of every run in a folder.": "显示某次运行或目录中所有运行的进度。",
    "Only reads files; changes nothing.": "只读取文件，不做任何修改。",
    "Check that no file of a run has changed since it was written.": "检查运行的每个文件是否与写入时一致。",
    "Exit code 1 if something is damaged.": "退出码 1：有文件损坏。",
    "Also reads what LLaMA-Factory, ms-swift, lm-evaluation-harness and OpenCompass write.": "也能读取 LLaMA-Factory、ms-swift、lm-evaluation-harness 和 OpenCompass 的预测文件。",
    "Download datasets and models for later offline use.": "下载数据集和模型，供之后离线使用。",
    "Later runs need no network (HF_HUB_OFFLINE=1).": "之后的运行不再需要网络（HF_HUB_OFFLINE=1）。",
    "Show what is in the datasets, and what is wrong with them.": "检查数据集：里面有什么，哪里有问题。",
    "Exit code 2: some data cannot be used. 1: training data overlaps evaluation data, or too "
    "many rows are lost. 0: otherwise.": "退出码：2，有数据无法使用；1，评测内容出现在训练集中，或丢弃的行过多；0，其他。",
    "Show a row as the model sees it: supervised, context, cut.": "按模型所见显示一行数据：学习、上下文、被截断的部分。",
    "Split a file into training and held-out rows.": "把文件拆成训练部分和留出部分。",
    "Writes NAME-train.jsonl and NAME-holdout.jsonl. Rows that share a passage stay together.": "写出 NAME-train.jsonl "
    "和 NAME-holdout.jsonl。共用同一段落的行不会被拆开。",
    "Write any dataset as messages in JSONL.": "把任意格式的数据集转成 messages 形式的 JSONL。",
    "Rows that cannot be used are left out and listed, and the exit code is 1.": "无法使用的行会被略去并列出，此时退出码为 1。",
    "Say which dataset to use, and why.": "给出该用哪个数据集的结论和理由。",
    "Reads the scores from the run's files; changes nothing.": "只读取运行目录中的得分，不修改任何文件。",
    "Compare two runs question by question.": "逐题比较两次运行。",
    "Rebuild a run's report.html and print its path.": "重新生成运行的 report.html，并打印其路径。",
    "Show runs in the browser, live.": "在浏览器中实时查看运行。",
    "Only this machine can reach the page.": "页面只能从本机访问。",
    "Score predictions in a file, without a model.": "给文件中的预测打分，不需要模型。",
    "Export a candidate as a model, or the predictions.": "把某个候选导出为模型，或导出全部预测。",
    "A merged model is loaded again and tested: it must answer as the adapter does.": "合并后的模型会被重新读入并提问，"
    "其回答必须与适配器一致。",
}

# The help of an option or argument.
_PARAMETERS = {
    "Price of one card per hour.": "一张卡一小时的价格。",
    "Time two real training steps; loads the weights.": "实测两个训练步的时间；会加载权重。",
    "A training set.": "一个训练集。",
    "Plan for a card with this much memory: 24GB.": "按这么大显存的卡来预估：24GB。",
    "Training sets to compare, as for `run`.": "要比较的训练集，与 `run` 相同。",
    "Evaluate the base alone; `loracle resume` does the rest.": "只评测基座；其余由 `loracle resume` 完成。",
    "Estimate the run, as `loracle plan` does; start nothing.": "像 `loracle plan` 一样预估，不启动任何东西。",
    "The run folder to plan for.": "打算使用的运行目录。",
    "Number of such cards.": "这样的卡有几张。",
    "Plan for this card, not this machine: rtx4090.": "按这种卡而不是本机来预估：rtx4090。",
    "A model folder, a hub id, or `embedded`.": "模型目录、hub 名称或 `embedded`。",
    "Exit with code 1 if anything is listed under `Read this first`.": "只要“请先看”里有内容，就以 1 退出。",
    "Show every reason as a sentence instead of a table.": "用句子列出每条理由，而不是表格。",
    "Print the version and exit.": "打印版本号并退出。",
    "Language of messages and help; auto follows LANG.": "消息和帮助的语言；auto 跟随 LANG。",
    "Show only warnings, failures and the result.": "只显示警告、失败和结果。",
    "Show every event, and the libraries' own messages.": "显示每个事件以及各依赖库的输出。",
    "Show this message and exit.": "显示本帮助并退出。",
    "Install completion for the current shell.": "为当前 shell 安装命令补全。",
    "Show completion for the current shell, to copy it or customize the installation.": "显示当前 shell 的补全脚本，"
    "便于复制或自行安装。",
    "Training sets to compare: files or hub addresses.": "要比较的训练集：文件或 hub 地址。",
    "An evaluation set; may be repeated.": "评测集，可重复给出。",
    "A training file of LLaMA-Factory, axolotl or ms-swift (YAML), or a script that starts one of them.": "LLaMA-Factory、axolotl 或 ms-swift 的训练配置（YAML），或启动其中之一的脚本。",
    "The plan to write.": "要写出的方案文件。",
    "A model folder, a hub id, or `embedded` (the default).": "模型目录、hub 上的模型名，或 `embedded`（默认）。",
    "The run folder, or its URL (s3://...). Default: runs/, then date and candidates.": (
        "运行目录，或其 URL（s3://...）。默认：runs/ 下以日期和候选命名。"
    ),
    "A plan in YAML.": "YAML 格式的实验方案。",
    "How many devices, or which GPUs: 4, or 0,2. Default: all visible GPUs.": "用几个设备，或用哪些 GPU：4 或 0,2。默认：所有可见的 GPU。",
    "A running Ray cluster, HOST:PORT. Default: this machine alone.": "已运行的 Ray 集群，HOST:PORT。默认：仅本机。",
    "Set one key of the plan: training.epochs=2.": "设置方案中的一个键：training.epochs=2。",
    "Print results.json instead of the table.": "打印 results.json 而不是表格。",
    "Plans (.yaml), datasets (hf://org/name, ms://org/name), model ids (org/name).": "方案（.yaml）；"
    "数据集（hf://org/name、ms://org/name）；模型名（org/name）。",
    "Where model ids without hf:// or ms:// are looked up: auto, huggingface or modelscope.": "没有 hf:// 或 ms:// 前缀的模型名到哪里查找：auto、huggingface 或 modelscope。",
    "Training sets to check, as for `run`.": "要检查的训练集，写法同 `run`。",
    "An evaluation set that training data must not overlap.": "训练数据中不应出现的评测集。",
    "Count in this model's tokens. Default: in characters.": "按该模型的 token 计数。默认按字符计。",
    "Check the data of this plan.": "检查该方案中的数据。",
    "Set one key of the plan, as for `run`.": "设置方案中的一个键，写法同 `run`。",
    "The form of the rows. Default: detected from their keys.": "行的格式。默认根据键名判断。",
    "A field under another name: question=query.": "字段的实际列名：question=query。",
    "The split to read, if there is more than one.": "有多个 split 时取哪一个。",
    "Encoding of text other than UTF-8: gb18030.": "文本编码（非 UTF-8 时）：gb18030。",
    "What to do with questions marked as unanswerable: answer, drop or error.": "标记为无答案的问题：answer、drop 或 error。",
    "Print JSON instead of cards.": "打印 JSON 而不是卡片。",
    "The data file.": "数据文件。",
    "The row's number, counted from 1.": "第几行，从 1 开始。",
    "The model whose template and tokens are used. Default: embedded.": "使用哪个模型的模板和 token。默认：embedded。",
    "Show each token's id after it.": "在每个 token 后写出其 id。",
    "Render according to this plan (max_length, train_on, ...).": "按该方案渲染（max_length、train_on 等）。",
    "The share of rows to hold out.": "留出的比例。",
    "The seed that decides which rows are held out.": "决定哪些行被留出的随机种子。",
    "The folder to write to.": "写入的目录。",
    "Print JSON.": "打印 JSON。",
    "A file, a folder, or an entry: dataset_info.json#name.": "文件、目录，或条目：dataset_info.json#name。",
    "The JSONL file to write.": "要写出的 JSONL 文件。",
    "How many rows to write, from the first.": "从第一行起取多少行。",
    "Use this metric instead of the plan's.": "改用方案之外的指标。",
    "Use this confidence instead of the plan's: 0.9.": "改用方案之外的置信度：0.9。",
    "Another run with the same questions.": "另一次问题相同的运行。",
    "The folder of a run, or its URL.": "运行目录，或其 URL。",
    "Open it in the browser.": "在浏览器中打开。",
    "A run's folder, or a folder of runs.": "某次运行的目录，或包含多次运行的目录。",
    "Default: 8642, or a free one if that is taken.": "默认 8642；被占用时取空闲端口。",
    "Rows of {prediction, answers}.": "每行为 {prediction, answers}。",
    "A key under another name: prediction=output.": "键的实际名称：prediction=output。",
    "A column to leave out on purpose.": "有意不用的列。",
    "Run only this candidate's trials; leave the others as they are.": "只跑这个候选，其余保持不变。",
    "Also run failed trials again.": "失败的训练也重新运行。",
    "Metric names, separated by commas.": "指标名，以逗号分隔。",
    "Write the rows with their scores to this JSONL file.": "把各行连同得分写入该 JSONL 文件。",
    "The candidate to export as a model, or NAME--sSEED.": "要导出为模型的候选，或 NAME--sSEED。",
    "Write all predictions with their scores to this Parquet file.": "把全部预测连同得分写入该 Parquet 文件。",
    "peft: the adapter. merged: merged with the base. gguf-ready, ollama: merged, for llama.cpp's "
    "converter or Ollama.": "peft：适配器；merged：与基座合并；gguf-ready：供 llama.cpp；ollama：供 Ollama。",
    "The new folder. Default: NAME-FORM.": "新目录。默认：NAME-FORM。",
    "Precision of the merged model. Default: the base's if that changes no checked answer, else "
    "float32.": "合并模型的精度。默认：回答不变则同基座，否则 float32。",
}


# Not at the end of a text: the last clause needs no break.
_CLAUSE_END = re.compile(r"([；。])(?=.)")


def say(language: Language, key: str) -> str:
    """A message of the command line in a language."""
    return MESSAGES[key][language]


def help_in(language: Language, command: Any) -> None:
    """Bring a command's help into its final form, in a language: unwrap its paragraphs and add an
    example.

    command: from Typer's tree; its panels, parameters and help option are changed too.
    """
    command.help = "\n\n".join(_in(language, _COMMANDS, part) for part in paragraphs(command.help))
    if command.epilog:
        command.epilog = f"{_EXAMPLE[language]}{command.epilog}"
    if language == "en":
        return
    _set_panel(command, getattr(command, "rich_help_panel", None))
    for parameter in command.params:
        _translate(parameter, language)
    help_option = command.get_help_option

    def translated_help_option(context: Any) -> Any:
        option = help_option(context)
        if option is not None:
            _translate(option, language)
        return option

    command.get_help_option = translated_help_option
    usage = command.get_usage
    command.get_usage = lambda context: usage(context).replace("Usage: ", "用法：", 1)


def set_typers_words(language: Language) -> None:
    """Set the language of the words that Typer itself writes in --help, for this process."""
    rich_utils.DEFAULT_STRING, rich_utils.REQUIRED_LONG_STRING = _TYPERS[language]


def paragraphs(text: str | None) -> list[str]:
    """The paragraphs of a docstring, each on one line."""
    return [" ".join(part.split()) for part in (text or "").split("\n\n") if part.strip()]


def _translate(parameter: Any, language: Language) -> None:
    help_text = _in(language, _PARAMETERS, parameter.help or "")
    # Rich breaks lines at spaces, which Chinese does not have; typer breaks them at empty lines.
    parameter.help = _CLAUSE_END.sub(r"\1\n\n", help_text)
    default = "Arguments" if parameter.param_type_name == "argument" else "Options"
    _set_panel(parameter, getattr(parameter, "rich_help_panel", None) or default)


def _set_panel(owner: Any, panel: str | None) -> None:
    if panel is not None:
        owner.rich_help_panel = _PANELS.get(panel, panel)


def _in(language: Language, texts: Mapping[str, str], text: str) -> str:
    return text if language == "en" else texts.get(text, text)
