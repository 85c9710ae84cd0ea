#!/bin/sh
# Trains the models that are shipped, step by step as they were made; each is a command that a person could type.
#
#   infra/train-models.sh ROOT OUT FIRST [OPTION of covseg train]...
#
# ROOT   COVID-QU-Ex with Train and Val
# OUT    a new folder; runs/ and models/ are made in it. What is finished there is not done again.
# FIRST  first weights of the encoder: efficientnet-lite0's file of ImageNet; ours were those of fast-1,
#        git show f7ea2bf:covseg/models/default/weights.safetensors > fast-1.safetensors
#
# Three hours on two cores. A rehearsal: add --limit 40 --set stop.epochs=1
set -eu
root=$1 out=$2 first=$3
shift 3
runs=$out/runs models=$out/models
mkdir -p "$runs" "$models"

train() { # name, recipe, settings...
    name=$1 recipe=$2
    shift 2
    [ -f "$runs/$name.done" ] || covseg train "$recipe" --data "$root" --out "$runs/$name" "$@"
    touch "$runs/$name.done"
}

finish() { # name: what every new model needs before it may be shipped
    covseg models fit-filter "$models/$1" --data "$root"
    covseg calibrate "$models/$1" --data "$root" --specificity-on Normal -o "$out/calibration-$1"
}

# lungs, then infection: all strata, then the two that lungs can tell apart, then for long
train lungs lungs --set network.weights="$first" "$@"
train all fast --set network.weights="$first" --set stop.epochs=14 "$@"
two='data.strata=["COVID-19","Normal"]'
train two fast --set network.weights="$runs/all/weights.safetensors" --set "$two" --set loss.presence=0.5 \
    --set optimiser.lr=5e-4 --set stop.epochs=5 "$@"
train long fast --set network.weights="$runs/two/weights.safetensors" --set "$two" --set loss.presence=0.5 \
    --set optimiser.lr=1e-3 --set optimiser.average=0.995 --set stop.epochs=20 "$@"

[ -d "$models/lungs" ] || covseg models release "$runs/lungs" -o "$models/lungs" --name lungs
[ -f "$runs/mean.safetensors" ] ||
    covseg models average "$runs/all" "$runs/two" "$runs/long" --data "$root" -o "$runs/mean.safetensors"

# fast-3: from the mean, behind the lungs that it will see
train fast fast --set network.weights="$runs/mean.safetensors" --set "$two" --set loss.presence=0.5 \
    --set data.lung=predicted --set optimiser.lr=5e-4 --set stop.epochs=5 --lung-model "$models/lungs" "$@"
[ -d "$models/fast" ] || covseg models release "$runs/fast" -o "$models/fast" --name fast --lung-model "$models/lungs"
finish fast
