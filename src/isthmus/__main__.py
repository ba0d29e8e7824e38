"""Lets `python -m isthmus` run the command line."""

from isthmus.cli import main

if __name__ == "__main__":
    main.main()
