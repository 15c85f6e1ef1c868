"""The page that shows an evaluation or a data set, and the command that writes it (`python -m evaluators.report`)."""
