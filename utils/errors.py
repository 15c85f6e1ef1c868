"""The errors that a user can cause and mend.

Each is one sentence that names the thing, its value and the remedy.  A command that meets one prints the sentence and
exits with status 2 (`utils.cli`); every other exception is a fault of this program and shows its traceback.
"""

from __future__ import annotations


class InputError(ValueError):
    """Something that the user gave cannot be used."""


class SettingError(InputError):
    """A setting or a command-line option has a value that cannot be used, or contradicts another."""


class DataError(InputError):
    """A source file or a data set cannot be used."""


class CheckpointError(InputError):
    """A checkpoint, or a file of weights, cannot be used."""


class SubmissionError(InputError):
    """A submission or a file of predictions cannot be used."""
