"""What every part of the configuration, and of a recipe's files, is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen part that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
