"""Feature models fitted to labelled features."""
