"""What a base is loaded from, and in which form: enough for another process to load the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from loracle.model.placement import AUTO
from loracle.model.quantization import NONE


class LoadedForm(NamedTuple):
    """In which precision a model is loaded, and where to.

    dtype: auto, float32, bfloat16 or float16; auto is `preferred_dtype`.
    quantization: none, int8 or nf4, of the linear layers' weights.
    device: auto, cpu, cuda or mps; device_map: auto spreads the layers over all devices.
    """

    dtype: str = AUTO
    quantization: str = NONE
    device: str = AUTO
    device_map: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class BaseSource:
    """What another process needs to load the same base: the arguments of `load_base`, each as it
    was given there."""

    name: str
    folder_or_id: str
    form: LoadedForm
