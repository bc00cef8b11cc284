"""The objects every room speaks of: problem, compression, error model, record, files and the command-line manners."""
