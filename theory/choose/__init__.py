"""Which step, and how few bits: whoever chooses returns a plan."""
