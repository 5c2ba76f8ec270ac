"""Where a plan's model is loaded from."""

from __future__ import annotations

from loracle.data.hubs.fetching import fetch_plan_model
from loracle.model.embedded import embedded_model_folder
from loracle.plan import EMBEDDED, ModelPlan


def model_source(model: ModelPlan, commit: str | None = None, *, with_weights: bool = True) -> str:
    """The model's folder: the embedded model's, a hub's fetched files, or the folder it names.

    Args:
        model: the plan's model.
        commit: of a hub's model, as an earlier run recorded it; None is what its revision is now.
        with_weights: False leaves a hub's weights out, where only its tokenizer is needed.

    Raises:
        UserError: a hub's files cannot be had, or the embedded model is not installed.
    """
    if model.name == EMBEDDED:
        return str(embedded_model_folder())
    fetched = fetch_plan_model(model, commit, with_weights=with_weights)
    return str(fetched.folder) if fetched else model.name
