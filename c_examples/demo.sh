#!/bin/sh
# What `make demo` runs: a model answers a question, token by token, then the speed of it.
#   demo.sh PROGRAMS MODEL QUESTION
set -eu
programs=$1 model=$2 question=$3

printf '\n%s\n\n' "$question"
"$programs/mantle-generate" -m "$model" --special --stats -n 256 -p "<|im_start|>user
$question<|im_end|>
<|im_start|>assistant
"
printf '\nThe same model on fixed work, the best of several runs:\n'
"$programs/mantle-bench" model -m "$model" -p 12,512 -n 64
