"""Where the program starts, also by `python -m isthmus`.

Ctrl-C before the command line is there to say something ends the program without Python's own
lines about it.
"""

import signal


def main() -> None:
    """Import the command line and run it."""
    # Until then nothing has begun that would need to be put away.
    by_python = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from isthmus.cli import main as command_line  # this is what takes the time

    signal.signal(signal.SIGINT, by_python)
    command_line.main()


if __name__ == "__main__":
    main()
