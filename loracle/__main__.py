"""`python -m loracle`: the command line, where the `loracle` script is not on the path."""

from loracle.cli import main

if __name__ == "__main__":
    main()
