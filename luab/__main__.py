"""`python -m luab`: the same as the `luab` command."""

from luab.cli import main

if __name__ == "__main__":
    main()
