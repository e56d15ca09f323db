#!/usr/bin/env bash
# Builds the CPU image without a Docker daemon and without a registry, by debootstrap and buildah.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: docker/build_without_docker.sh [--tag T] [--base IMAGE] [-- BUILDAH_ARGUMENT ...]

Creates a base image of Debian bookworm (Python 3.11) by debootstrap, once, and builds
docker/Dockerfile on it by buildah. It needs root, buildah, debootstrap and 5 GB of disk space.

  --tag T         name of the image (default: localhost/openfold-opt:cpu)
  --base IMAGE    build on this image instead of creating one; needs no debootstrap
  -h, --help      show this

PIP_INDEX_URL, PIP_EXTRA_INDEX_URL (default: the index of PyTorch's CPU wheels; set it to nothing if
that is not reachable and torch is found elsewhere) and PIP_FIND_LINKS are passed to pip in the build.
A folder in PIP_FIND_LINKS and the certificates of this machine are mounted.
DEBIAN_MIRROR is the mirror of Debian. Arguments after -- go to `buildah build`.
TEXT
}

root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
tag=localhost/openfold-opt:cpu
base=
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help)
        usage
        exit 0
        ;;
    --tag | --base)
        if [ $# -lt 2 ]; then
            echo "build_without_docker.sh: $1 needs a value; see --help" >&2
            exit 2
        fi
        if [ "$1" = --tag ]; then tag="$2"; else base="$2"; fi
        shift 2
        ;;
    --)
        shift
        break
        ;;
    *)
        echo "build_without_docker.sh: unknown argument $1; see --help" >&2
        exit 2
        ;;
    esac
done

require() {
    if ! command -v "$1" >/dev/null 2>&1; then
        echo "build_without_docker.sh: found no $1; install it (Debian, Ubuntu: apt-get install $1) and" \
            "start again" >&2
        exit 2
    fi
}

# make_base NAME: create an image of Debian with Python and pip.
make_base() {
    local folder container
    require debootstrap
    if [ "$(id -u)" -ne 0 ]; then
        echo "build_without_docker.sh: debootstrap needs root, this is $(id -un); use sudo, or name an" \
            "image with --base" >&2
        exit 2
    fi
    folder="$(mktemp --directory)"
    # shellcheck disable=SC2064 # The folder is expanded now.
    trap "rm -rf '$folder'" EXIT
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python-is-python3 \
        bookworm "$folder" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    # pip does not need the compiler that Debian recommends with it, nor an image the packages it
    # was made of
    rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
    container="$(buildah from scratch)"
    buildah add --quiet "$container" "$folder" /
    buildah config --label org.opencontainers.image.title="Debian bookworm with Python 3.11" "$container"
    buildah commit --rm --quiet "$container" "$1"
    rm -rf "$folder"
    trap - EXIT
}

require buildah
if [ -z "$base" ]; then
    base=localhost/openfold-opt-base:bookworm
    buildah inspect --type image "$base" >/dev/null 2>&1 || make_base "$base"
fi

mounts=()
certificates=/etc/ssl/certs/ca-certificates.crt
if [ -f "$certificates" ]; then
    mounts+=(--volume "$certificates:$certificates:ro" --build-arg "PIP_CERT=$certificates")
fi
if [ -d "${PIP_FIND_LINKS:-}" ]; then
    mounts+=(--volume "$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro")
fi
revision="$(PYTHONPATH="$root" python3 -m benchmark.code_revision 2>/dev/null || echo unknown)"
buildah build --isolation=chroot --network=host --layers --file "$root/docker/Dockerfile" --tag "$tag" \
    --build-arg "BASE=$base" --build-arg "REVISION=$revision" \
    --build-arg "PIP_INDEX_URL=${PIP_INDEX_URL:-https://pypi.org/simple}" \
    --build-arg "PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL-https://download.pytorch.org/whl/cpu}" \
    --build-arg "PIP_FIND_LINKS=${PIP_FIND_LINKS:-}" \
    "${mounts[@]}" "$@" "$root"
echo "built $tag ($revision). The timed run in it, in a container called openfold:"
echo "    buildah from --name openfold $tag"
echo "    buildah run --isolation=chroot openfold -- run_and_time.sh"
