"""From data files, or from another tool's training file, to a plan with comments.

file  --source-->        TheirFile       settings by their names, the tool detected
TheirFile  --a tool's module-->  Draft   what was kept, changed, not supported, not needed
Draft      --plan_file-->        YAML    every key that a user may want to change, with a comment

initial.py        the steps of `loracle init`        source.py     YAML and shell scripts, read
llama_factory.py  axolotl.py  ms_swift.py          commands.py   a training command in a script
rules.py          how one key becomes another      places.py     where their data is
draft.py          the plan while it is built        plan_file.py  the YAML that is written
listing.py        what is printed
transformers_settings.py   training_args and generation_kwargs of a program, to sections of a plan
dataset_paths.py           training and evaluation files as a program lists them
"""

from __future__ import annotations

from loracle.migration.initial import Written, init_plan
from loracle.migration.listing import listing

__all__ = ["Written", "init_plan", "listing"]
