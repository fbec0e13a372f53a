"""Everything that can go wrong and has a sentence for the user.

DemoError
|- RequestError(field)   a value somebody entered
|- WeightsError          a file of a model: missing, truncated, not what was expected
|- DeviceError           this machine cannot do it (memory, device)
|- NumericsError         the model produced numbers that are not finite
|- ServerError           another server that makes the clips: down, or at fault
`- Cancelled             somebody pressed Stop
"""

from __future__ import annotations

from opensora_demo.messages import Message, catalog, message, render


class DemoError(Exception):
    """One sentence, without paths of the server or a traceback: `message` for the reader's language, str() English."""

    message: Message

    def __init__(self, said: Message) -> None:
        self.message = said
        super().__init__(self.message)

    def __str__(self) -> str:
        return render(self.message)


class RequestError(DemoError):
    """A request cannot be run. `field` names the offending field as it is called in the API, `problem` what is wrong
    with it; `message` says both, with the field as the form calls it."""

    def __init__(self, field: str, problem: Message) -> None:
        self.field = field
        self.problem = problem
        label = f"label.{field}"
        title = message(label) if label in catalog("en") else field
        super().__init__(message("request.of_field", field=title, problem=self.problem))
        self.args = (field, self.problem)  # what a copy or a pickle is made of

    def __str__(self) -> str:
        return f"{self.field}: {render(self.problem)}"


class WeightsError(DemoError):
    """A checkpoint is missing, truncated or does not fit the model."""


class DeviceError(DemoError):
    """The device cannot run this."""


class OutOfMemory(DeviceError):
    """The device had no memory left for this."""


class NumericsError(DemoError):
    """The model's output is not finite."""


class ServerError(DemoError):
    """Another server, which makes the clips, cannot be reached or does not do what it should."""


class Cancelled(DemoError):
    """The run was stopped."""
