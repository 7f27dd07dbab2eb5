"""`python -m eyelid` is `eyelid`."""

from .cli import main

raise SystemExit(main())
