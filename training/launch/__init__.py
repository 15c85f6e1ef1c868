"""From the words of a command line to an open run, and the plan that a dry run prints."""
