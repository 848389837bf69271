"""`python -m clipseg_cli` is `clipseg`."""

from clipseg_cli.cli.main import main

if __name__ == "__main__":
    main()
