"""The `efp` command: `python -m efp_hf` is the same, and what `accelerate launch -m efp_hf train` runs."""

import sys


def main(argv=None) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 (a clone can be run by any Python)
        sys.exit("efp needs Python 3.11 or newer, got %d.%d." % sys.version_info[:2])  # noqa: UP031
    try:
        from .commands import main as run  # not above: no older Python can read it

        return run(argv)
    except KeyboardInterrupt:  # before a command has begun; each says itself how to go on
        print("efp: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
