"""Every error training raises on purpose, as a tree.

    TrainingError
      DataError
        DataUnavailable   a data file is neither in the data folder nor to be downloaded
        InvalidData       a data file is there, but it is not what it should be
      Diverged            the loss became NaN or infinite
      Unsuitable          a choice fits neither the rows nor the machine it is for
      Unloadable          saved weights cannot be read, or are those of another network
      ExportError         nothing was written; the model that was there before still is
        BelowFloor        the held-out result is worse than the model's floor
        Disagreement      ONNX Runtime does not answer as PyTorch does
        NotSaved          the files could not be written

The message is one sentence: what, expected, got, where. The command line prints it and exits
with status 1, after Unsuitable with 2, as for a wrong command line.
"""


class TrainingError(Exception):
    """Base of the tree above."""


class DataError(TrainingError):
    """The rows to train on cannot be had."""


class DataUnavailable(DataError):
    """A data file is neither in the data folder nor to be downloaded."""


class InvalidData(DataError):
    """A data file is there, but it is not what it should be."""


class Diverged(TrainingError):
    """The loss became NaN or infinite."""


class Unsuitable(TrainingError):
    """A choice fits neither the rows nor the machine it is for."""


class Unloadable(TrainingError):
    """Saved weights cannot be read, or are those of another network."""


class ExportError(TrainingError):
    """Nothing was written; the model that was there before still is."""


class BelowFloor(ExportError):
    """The held-out result is worse than the model's floor."""


class Disagreement(ExportError):
    """ONNX Runtime does not answer as PyTorch does."""


class NotSaved(ExportError):
    """The files could not be written."""
