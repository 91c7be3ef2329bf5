"""`python -m avenir`, the same as `avenir`."""

from avenir.cli import main

if __name__ == "__main__":
    main()
