#!/usr/bin/env bash
# Makes .venv-peers, the environment of the programs Loracle is measured against.
# Usage: benchmarks/setup_peers.sh [PYTHON]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${1:-python3}"
environment=.venv-peers

# Without the stamp an earlier installation was cut off, or there was none: start clean.
if [[ ! -e "$environment/.installed" ]]; then
    "$python" -m venv --clear "$environment"
fi
rm -f "$environment/.installed"
"$environment/bin/python" -m pip install --quiet \
    -c constraints.txt -r benchmarks/requirements-peers.txt
touch "$environment/.installed"
"$environment/bin/python" -m pip list 2>/dev/null | grep -E '^(torch|transformers|peft|trl|datasets) '
