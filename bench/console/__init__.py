"""The console measured in a real browser (``make bench-console``); figures stand in ``docs/reference/console-figures.md``."""
