"""`python -m dartok` is the `dartok` command."""

from dartok.cli.app import main

if __name__ == "__main__":
    main()
