#!/bin/sh
# What `make demo` runs: an encoder compares sentences, a decoder answers a question, token by token, then its speed.
#   demo.sh PROGRAMS ENCODER MODEL QUESTION
set -eu
programs=$1 encoder=$2 model=$3 question=$4

printf '\nHow alike sentences are, by the cosines of their embeddings:\n\n'
"$programs/mantle-embed" -m "$encoder" --similarity <<'END'
A cat sleeps on the sofa.
The kitten naps on a couch.
Interest rates rose again in spring.
The central bank made borrowing more expensive.
How do I reset my password?
I cannot log in to my account.
END

printf '\n%s\n\n' "$question"
"$programs/mantle-generate" -m "$model" --special --stats -n 256 -p "<|im_start|>user
$question<|im_end|>
<|im_start|>assistant
"
printf '\nThe same model on fixed work, the best of several runs:\n'
"$programs/mantle-bench" model -m "$model" -p 12,512 -n 64
