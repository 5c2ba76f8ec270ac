"""The interface of the original system: train, evaluate, and both for many datasets.

    train_module.train_model_on_dataset_with_progress        a model and a dataset -> an adapter
    evaluate_module.evaluate_model_on_dataset_with_progress  a model and questions -> EM and F1
    pipeline_module.run_training_evaluation_pipeline         datasets -> one JSON file
    pipeline_module.run_pipeline_with_progress               the same, with live bars

Thin modules over loracle: the loop, the generation and the metrics are loracle's own.
"""

from __future__ import annotations
