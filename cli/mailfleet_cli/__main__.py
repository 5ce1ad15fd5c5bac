"""`python -m mailfleet_cli`: the same as the command `mailfleet`, where scripts are not installed."""

from __future__ import annotations

from mailfleet_cli.main import main

if __name__ == "__main__":
    main()
