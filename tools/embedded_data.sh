# shellcheck shell=bash
# The data of the presets demo and demo_*: synthetic families, made where they are wanted. Sourced after environment.sh.

# has_embedded_data PRESET
has_embedded_data() {
    case "$1" in
    # the path of a preset
    *.py) return 1 ;;
    demo | demo_*) return 0 ;;
    *) return 1 ;;
    esac
}

# make_embedded_data DIR: synthetic families as raw files, then shards; skipped when the shards are there.
make_embedded_data() {
    local raw="$1/raw" shards="$1/shards"
    mkdir -p "$1"
    wait_for_turn "$1/lock"
    if [ -e "$1/complete" ] && [ -e "$shards/index.h5" ]; then
        say "embedded data: $shards"
        end_turn
        return 0
    fi
    say "making embedded data in $1"
    rm -rf "$raw"
    "$PYTHON" -m data_prep synthesize --out "$raw"
    "$PYTHON" -m data_prep convert --pdb-mmcif "$raw/pdb_mmcif" --open-protein-set "$raw/open_protein_set" --out "$shards"
    touch "$1/complete"
    end_turn
}
