#!/bin/sh
# Makes .venv with exactly the packages of requirements/dev.lock. Needs Python 3.11 or newer.
set -eu
cd "$(dirname "$0")/.."

is_new_enough() {
    "$1" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# A system-wide interpreter comes first: one in somebody's home may be unreadable for other users,
# and the lab's tests run as an ordinary user, too.
python=
for candidate in ${PYTHON:-} /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
        python=$(command -v "$candidate")
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: no Python 3.11 or newer with the venv module was found" >&2
    echo "hint: install python3-venv, or name one: make PYTHON=/path/to/python3 venv" >&2
    exit 1
fi

lock=requirements/dev.lock
echo "setting up .venv with $("$python" --version): $(grep -c == $lock) packages, a minute or so"
rm -rf .venv
"$python" -m venv .venv
# Our own modules are compiled meanwhile: all programs of the first lab start at once.
PYTHONDONTWRITEBYTECODE= .venv/bin/python -m compileall -q src &
if ! .venv/bin/python -m pip install --quiet --require-hashes --no-deps -r $lock; then
    wait
    echo "error: .venv is not complete, since pip has failed; nothing else was changed" >&2
    echo "hint: it needs a package index (or PIP_INDEX_URL) and 1 GB of disk; then try again" >&2
    exit 1
fi
.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
wait
touch .venv/.complete
echo "set up; from now on it is used as it is"
