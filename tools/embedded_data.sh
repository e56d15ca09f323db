# shellcheck shell=bash
# Creates the data of the presets demo and demo_*: synthetic families. Source it after
# environment.sh.

# has_embedded_data PRESET
has_embedded_data() {
    case "$1" in
    # The path of a preset file.
    *.py) return 1 ;;
    demo | demo_*) return 0 ;;
    *) return 1 ;;
    esac
}

# make_embedded_data DIR: write synthetic families as raw files and convert them to shards, unless
# the shards exist.
make_embedded_data() {
    local raw="$1/raw" shards="$1/shards"
    mkdir -p "$1"
    lock_setup "$1/lock"
    if [ -e "$1/complete" ] && [ -e "$shards/index.h5" ]; then
        say "embedded data: $shards"
        unlock_setup
        return 0
    fi
    say "creating embedded data in $1"
    rm -rf "$raw"
    "$PYTHON" -m data_prep synthesize --out "$raw"
    "$PYTHON" -m data_prep convert --pdb-mmcif "$raw/pdb_mmcif" \
        --open-protein-set "$raw/open_protein_set" --out "$shards"
    touch "$1/complete"
    unlock_setup
}
