"""`python -m services.command`, the same as `chatserver`."""

from services.command import main

main()
