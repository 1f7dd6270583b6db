"""The command line: parse, call, render. May import every room, inside functions only."""
