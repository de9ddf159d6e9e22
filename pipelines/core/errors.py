"""The errors a user can cause; each prints as one line that names the field, the value and the remedy."""


class UserError(Exception):
    """A mistake in the configuration, the data or the environment that the user can correct."""


class DivergedError(UserError):
    """Training left the range of finite numbers."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"training diverged at step {step}: {what} is not finite; lower the learning rate")
        self.step = step


class GuaranteeError(UserError):
    """A run contradicts the guarantee it claims; its epsilon would be false."""


class StoreError(UserError):
    """The tracking store failed.

    Attributes:
      lost: whether the store refused even the run's last status; then other runs need not try it.
    """

    lost = False
