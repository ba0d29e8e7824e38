"""The program's first moments, before the command line can say anything."""

import os
import signal
import subprocess
import sys

from isthmus.testing import pace


def test_ctrl_c_while_the_program_is_still_being_read_ends_it_without_a_word(tmp_path):
    # Stands before the real one on the path, and holds the start there.
    (tmp_path / "click.py").write_text("print('reading', flush=True)\ninput()\n")
    starting = subprocess.Popen(
        [sys.executable, "-m", "isthmus", "version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert starting.stdout.readline() == "reading\n"

    starting.send_signal(signal.SIGINT)
    said, complained = starting.communicate(timeout=pace.patience(30))

    assert (starting.returncode, said, complained) == (-signal.SIGINT, "", "")
