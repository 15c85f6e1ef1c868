"""The page that shows a run or a data set, and the command that writes it."""

from evaluators.report.page import REPORT, of_data, of_run

__all__ = ["REPORT", "of_data", "of_run"]
