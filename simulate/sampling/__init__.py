"""How samples are drawn and counted: each file says what it integrates out, if anything."""
