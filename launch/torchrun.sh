#!/usr/bin/env bash
# Start `moss train ARGUMENTS` on this node; run the same line on every node of a run of several.
#
#   launch/torchrun.sh [--dry-run] stage=pt2 model=11b parallel=tp8 run_dir=runs/pt2
#
# Environment (defaults in brackets):
#   NPROC_PER_NODE  processes on this node [number of GPUs, 1 without]
#   NNODES [1]  NODE_RANK [0]  MASTER_ADDR  MASTER_PORT [29500]   the nodes; MASTER_ADDR is the address of node 0
#   MAX_RESTARTS [0]  how often the ranks are started again after one of them failed
#   MIN_NODES       at least so many of NNODES make a world; whenever a node is lost or comes, the world is formed anew
#   RUN_ID [moss]   with either of them: the same on all nodes, another for every run that shares MASTER_ADDR and MASTER_PORT
#   PYTHON          interpreter with moss-train installed [.venv/bin/python beside this folder, else python3]
#   TORCHRUN_ARGS   further options of torch.distributed.run, split at blanks
set -euo pipefail

die() {
    echo "torchrun.sh: $*" >&2
    exit 2
}

dry_run=no
if [ "${1:-}" = "--dry-run" ]; then
    dry_run=yes
    shift
fi
[ $# -gt 0 ] || die "nothing to train; give the arguments of moss train, for example stage=pt1"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$here/../.venv/bin/python" ] && PYTHON=$(cd "$here/.." && pwd)/.venv/bin/python
fi
command -v "$PYTHON" >/dev/null || die "PYTHON is '$PYTHON', which is no program; set it to the interpreter of your environment"

gpus() { nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true; }

NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
NPROC_PER_NODE=${NPROC_PER_NODE:-$(gpus)}
[ "$NPROC_PER_NODE" != 0 ] || NPROC_PER_NODE=1
MAX_RESTARTS=${MAX_RESTARTS:-0}
MIN_NODES=${MIN_NODES:-$NNODES}
for name in NNODES NODE_RANK NPROC_PER_NODE MAX_RESTARTS MIN_NODES; do
    [[ ${!name} =~ ^[0-9]+$ ]] || die "$name is '${!name}'; it must be a whole number"
done
[ "$NODE_RANK" -lt "$NNODES" ] || die "NODE_RANK is $NODE_RANK; with NNODES=$NNODES it must be below $NNODES"
[ "$MIN_NODES" -ge 1 ] && [ "$MIN_NODES" -le "$NNODES" ] || die "MIN_NODES is $MIN_NODES; it must be 1 to NNODES, which is $NNODES"

command=("$PYTHON" -m moss_train.parallel.agent --nproc-per-node "$NPROC_PER_NODE" --max-restarts "$MAX_RESTARTS")
# Nodes that come and go, and restarts on several nodes, need a rendezvous that counts them; it numbers the nodes itself.
if [ "$MIN_NODES" -lt "$NNODES" ] || { [ "$NNODES" -gt 1 ] && [ "$MAX_RESTARTS" -gt 0 ]; }; then
    [ -n "${MASTER_ADDR:-}" ] || die "MASTER_ADDR is not set; give the address of node 0, the same on every node"
    command+=(--nnodes "$MIN_NODES:$NNODES" --rdzv-backend c10d --rdzv-id "${RUN_ID:-moss}")
    command+=(--rdzv-endpoint "$MASTER_ADDR:${MASTER_PORT:-29500}")
elif [ "$NNODES" -gt 1 ]; then
    [ -n "${MASTER_ADDR:-}" ] || die "MASTER_ADDR is not set; give the address of node 0, the same on every node"
    command+=(--nnodes "$NNODES" --node-rank "$NODE_RANK" --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}")
elif [ -n "${MASTER_PORT:-}" ]; then
    command+=(--nnodes 1 --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "$MASTER_PORT")
else
    command+=(--nnodes 1 --standalone) # any free port
fi
# shellcheck disable=SC2206
[ -z "${TORCHRUN_ARGS:-}" ] || command+=($TORCHRUN_ARGS)
command+=(-m moss_train.cli.main train "$@")

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1}

if [ "$dry_run" = yes ]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
# A mistake in the configuration is said once, before any rank starts.
"$PYTHON" -m moss_train.cli.main train "$@" --print-config >/dev/null
exec "${command[@]}"
