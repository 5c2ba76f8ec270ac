"""The manifest and the job script of docs/cluster.md are of the form that their readers ask for."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from loracle.cli.shell import app

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "examples" / "cluster"


def manifest() -> Any:
    return yaml.safe_load((FOLDER / "raycluster.yaml").read_text())


def groups() -> list[Any]:
    spec = manifest()["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_the_manifest_is_a_ray_cluster() -> None:
    schema = json.loads((Path(__file__).parent / "raycluster.schema.json").read_text())
    jsonschema.validate(manifest(), schema)


def test_the_schema_refuses_a_key_in_the_wrong_place() -> None:
    schema = json.loads((Path(__file__).parent / "raycluster.schema.json").read_text())
    wrong = manifest()
    wrong["spec"]["headGroupSpec"]["replicas"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replicas"):
        jsonschema.validate(wrong, schema)


def test_the_manifest_has_the_ray_that_is_tested() -> None:
    constraints = (REPOSITORY / "constraints.txt").read_text()
    assert f"ray=={manifest()['spec']['rayVersion']}\n" in constraints


def test_every_volume_that_is_mounted_is_there_and_all_pods_share_it() -> None:
    for group in groups():
        pod = group["template"]["spec"]
        names = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == names == {"shared"}


def test_limits_and_requests_of_gpus_are_equal_as_kubernetes_asks() -> None:
    for group in groups():
        for container in group["template"]["spec"]["containers"]:
            resources = container["resources"]
            assert resources["limits"] == resources["requests"]


def test_the_job_script_is_a_program_and_its_options_exist() -> None:
    script = FOLDER / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    (line,) = re.findall(r"^loracle run .*$", script.read_text(), re.MULTILINE)
    command: Any = typer.main.get_command(app)
    known = {option for p in command.commands["run"].params for option in p.opts}
    assert set(re.findall(r"--[a-z-]+", line)) <= known
