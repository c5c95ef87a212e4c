"""`python -m softprompt` is the command `softprompt`."""

from softprompt.cli import main

main()
