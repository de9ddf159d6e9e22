"""The errors a user can cause; each prints as one line that names the field, the value and the remedy."""


class UserError(Exception):
    """Something in the configuration, the data or the environment that its user can mend."""


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
      lost: whether it did not even take the run's last status, so that another run need not try.
    """

    lost = False
