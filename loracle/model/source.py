"""Where a plan's model is loaded from."""

from __future__ import annotations

from loracle.data.hubs.fetching import fetch_plan_model
from loracle.model.embedded import embedded_model_folder
from loracle.plan import EMBEDDED, ModelPlan


def model_source(model: ModelPlan, commit: str | None = None, *, with_weights: bool = True) -> str:
    """The model's folder: the embedded model's, the files fetched from a hub, or the named folder.

    Args:
        model: the plan's model.
        commit: of a hub's model, as recorded by an earlier run; None means the current commit of
        its revision.
        with_weights: False skips a hub's weights, if only its tokenizer is needed.

    Raises:
        UserError: a hub's files are not available, or the embedded model is not installed.
    """
    if model.name == EMBEDDED:
        return str(embedded_model_folder())
    fetched = fetch_plan_model(model, commit, with_weights=with_weights)
    return str(fetched.folder) if fetched else model.name
