"""The search process: index, lexicon and model live there, so that the daemon's loop and memory stay untouched."""
