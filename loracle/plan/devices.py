"""The section on devices: how Ray runs trials on several of them."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from loracle.plan.messages import refuse, show
from loracle.plan.sections import Count, Section, Text


class RayPlan(Section):
    """How Ray runs trials on several devices: each in a process that holds the base."""

    address: Text = "auto"
    """The cluster: HOST:PORT of its head; `local`: this machine alone, nothing to set up; auto:
    the cluster that the variable RAY_ADDRESS names, else local."""
    devices_per_trial: Count = 1
    """GPUs of one trial, whole ones. Above 1 only with `model.device_map: auto`, which spreads the
    model over them, or `training.data_parallel: auto`, which shares every step among them. 1: what
    training.data_parallel needs."""
    cpus_per_trial: Count | Literal["auto"] = "auto"
    """Processor cores of one trial. auto: on this machine its cores shared evenly, on a cluster
    1."""

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        if "://" in address:
            refuse(
                f"ray.address: found {show(address)}; expected local, auto or HOST:PORT of a "
                "cluster that this machine is part of (`ray start --address=HOST:PORT` joins it)"
            )
        return address
