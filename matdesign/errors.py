"""The errors of the package. Each message says what was wrong, what we got, what to do."""


class MatdesignError(Exception):
    """Base of every error this package raises on purpose."""


class ShapeError(MatdesignError, ValueError):
    """Arrays do not fit together: the message names both shapes."""


class UnitError(MatdesignError, ValueError):
    """A value came with a unit that its quantity does not have."""


class DataError(MatdesignError, ValueError):
    """A file, a crystal or a data set cannot be used as it is."""


class InfeasibleTarget(MatdesignError, ValueError):
    """What was asked for cannot exist, or was not found in the budget."""
