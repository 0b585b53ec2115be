"""The console's door: its files, how one logs in, what a session opens, and the live stream (docs/spec/console.md)."""
