"""`python -m fieldfold` is the `fieldfold` command."""

from fieldfold.cli.main import main

main()
