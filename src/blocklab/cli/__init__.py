"""The command line: one command a verb, which parses, calls and prints."""
