"""`python -m urbancli` is `urban`."""

from urbancli.cli import main

if __name__ == "__main__":
    main()
