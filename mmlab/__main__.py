"""`python -m mmlab` is the command `mmlab`."""

from __future__ import annotations

from mmlab.cli import main

if __name__ == "__main__":
    main()
