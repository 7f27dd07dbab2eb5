"""`python -m eyelid.cli` is `eyelid`."""

from . import main

raise SystemExit(main())
