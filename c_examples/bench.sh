#!/bin/sh
# What `make bench` runs: limits, matrices and a model; or one command of mantle-bench with its options.
#   bench.sh PROGRAMS MODEL [COMMAND OPTIONS...]
set -eu
programs=$1 model=$2
shift 2

if [ $# -gt 0 ]; then
    exec "$programs/mantle-bench" "$@"
fi
for command in limits matvec matmul; do
    printf '\n== %s\n' "$command"
    "$programs/mantle-bench" $command
done
printf '\n== model\n'
"$programs/mantle-bench" model -m "$model"
