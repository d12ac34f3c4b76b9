# Shell functions for tools/test and tools/demo; sourced from the project's folder.
#
# What they set up: missing Debian packages (apt-get, through sudo when not root) and `.venv` with exactly the
# packages of the lock files, checked by hash.  Done already means done in a moment.  Output goes to files in
# `.setup/` and is shown when something fails.  A `.venv` without its stamp is never used: it is made anew.

SETUP_FOLDER=$PWD/.setup
VENV=$PWD/.venv

# What every use needs: mounting, and building pyfuse3, which comes as source.
RUN_PACKAGES="ca-certificates fuse3 gcc libc6-dev libfuse3-dev pkg-config"
# What the tests use besides: programs on the other side of the mount, and compilers for other machines.
TEST_PACKAGES="attr ceph-base ceph-common ceph-mgr ceph-mon ceph-osd clang dcm2niix dcmtk git libclang-rt-dev procps radosgw rsync tar util-linux"
if [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ]; then
    TEST_PACKAGES="$TEST_PACKAGES gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
fi

stage() {
    printf '== %s\n' "$*"
}

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        fail "this needs root: run it as root or install sudo"
    fi
}

# quietly NAME COMMAND...: runs with the output in a file; shows its end when the command fails.
quietly() {
    local name=$1 log=$SETUP_FOLDER/$1.log
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        fail "$name failed; all of its output: $log"
    fi
}

missing_packages() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

need_packages() {
    command -v apt-get >/dev/null || fail "needs Debian's apt-get, or these packages by hand: $*"
    local missing
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    stage "installing Debian packages:" $missing
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null || fail "installing packages needs root or sudo"
    quietly apt-update as_root apt-get -q update
    # shellcheck disable=SC2086  one word a package
    quietly apt-install as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing
}

# The interpreter: the system's python3 with what a venv and building a package need.
need_python() {
    command -v python3 >/dev/null || need_packages python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "needs Python 3.11 or newer; python3 here is $(python3 -V 2>&1)"
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv
    python3 -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' ||
        need_packages python3-dev
}

# What a complete .venv was made from: it has to be made anew when any of it changes.
venv_recipe() {
    {
        echo "$VENV"
        python3 -c 'import sys; print(sys.executable, sys.version)'
        cat requirements-build.lock "$1"
        sed '/^\[tool\.\(ruff\|mypy\|pytest\|importlinter\)/,$d' pyproject.toml
    } | sha256sum | cut -d ' ' -f 1
}

# need_venv run|test
need_venv() {
    local purpose=$1 lock=requirements.lock recipe
    [ "$purpose" = run ] || lock=requirements-dev.lock
    # The venv for tests holds all that a run needs.
    if [ "$purpose" = run ] && [ "$(cat "$VENV/stamp-test" 2>/dev/null)" = "$(venv_recipe requirements-dev.lock)" ]; then
        return 0
    fi
    recipe=$(venv_recipe "$lock")
    [ "$(cat "$VENV/stamp-$purpose" 2>/dev/null)" = "$recipe" ] && return 0
    stage "making .venv from $lock"
    rm -rf "$VENV"
    quietly venv python3 -m venv "$VENV"
    quietly pip-build "$VENV/bin/pip" install --disable-pip-version-check --require-hashes -r requirements-build.lock
    quietly pip-install "$VENV/bin/pip" install --disable-pip-version-check --require-hashes --no-build-isolation -r "$lock"
    quietly pip-project "$VENV/bin/pip" install --disable-pip-version-check --no-deps --no-build-isolation --editable .
    kernel_recipe >"$VENV/stamp-kernel"
    echo "$recipe" >"$VENV/stamp-$purpose.part"
    mv "$VENV/stamp-$purpose.part" "$VENV/stamp-$purpose"
}

# What the module in C is compiled from, and by what.
kernel_recipe() {
    { gcc --version; cat dicomfs/codec/kernel/*.[ch] dicomfs/codec/kernel/build.py; } | sha256sum | cut -d ' ' -f 1
}

# need_kernel: the module in C beside its sources, compiled anew when they, or the compiler, changed.
need_kernel() {
    if [ "$(cat "$VENV/stamp-kernel" 2>/dev/null)" = "$(kernel_recipe)" ] &&
        [ -n "$(find dicomfs/codec/kernel -name '_kernel.*.so' -print -quit)" ]; then
        return 0
    fi
    stage "compiling the codec kernel"
    quietly kernel "$VENV/bin/python" -m dicomfs.codec.kernel.build
    kernel_recipe >"$VENV/stamp-kernel"
}

# need_fuse: the device through which a filesystem in user space talks to the kernel.
need_fuse() {
    [ -c /dev/fuse ] || as_root modprobe fuse 2>/dev/null || true
    [ -c /dev/fuse ] || fail "there is no /dev/fuse; in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN"
}

# set_up run|test: everything; two at once wait for each other.
set_up() {
    mkdir -p "$SETUP_FOLDER"
    exec 9>"$SETUP_FOLDER/lock"
    if command -v flock >/dev/null; then
        flock 9
    fi
    # shellcheck disable=SC2086
    if [ "$1" = test ]; then need_packages $RUN_PACKAGES $TEST_PACKAGES; else need_packages $RUN_PACKAGES; fi
    need_python
    need_venv "$1"
    need_kernel
    exec 9>&-
    need_fuse
}
