#!/bin/bash
# A Ray cluster inside one Slurm job, and a run on it: sbatch slurm.sh plan.yaml /shared/runs/first
#SBATCH --job-name=loracle
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --signal=B:TERM@120
set -euo pipefail
plan=$1 run=$2
export RAY_USAGE_STATS_ENABLED=0
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}'):6379

# The head of the cluster, then the other nodes; each stays in the foreground of its own step.
srun --overlap --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --node-ip-address="${address%:*}" --port=6379 --include-dashboard=false --block &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) -x "$head" \
    ray start --address="$address" --block &
  sleep 20
fi

# The driver, on the head's node. Slurm's signal two minutes before the end becomes checkpoints.
loracle run --plan "$plan" --out "$run" --ray-address "$address" &
driver=$!
trap 'kill -TERM $driver' TERM
wait $driver || wait $driver
