"""`python -m luab` runs the `luab` command."""

from luab.cli import main

if __name__ == "__main__":
    main()
