"""Everything that can go wrong and has a sentence for the user.

DemoError
|- RequestError(field)   a value somebody entered
|- WeightsError          a file of a model: missing, truncated, not what was expected
|- DeviceError           this machine cannot do it (memory, device)
|- NumericsError         the model produced numbers that are not finite
`- Cancelled             somebody pressed Stop
"""

from __future__ import annotations


class DemoError(Exception):
    """Its text is shown to the user as it is: one sentence, no paths of the server, no traceback."""


class RequestError(DemoError):
    """A request cannot be run. `field` names the offending field as it is called in the API."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class WeightsError(DemoError):
    """A checkpoint is missing, truncated or does not fit the model."""


class DeviceError(DemoError):
    """The device cannot run this."""


class NumericsError(DemoError):
    """The model's output is not finite."""


class Cancelled(DemoError):
    """The run was stopped."""
