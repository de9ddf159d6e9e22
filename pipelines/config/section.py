"""What every part of the configuration, and of a recipe's files, is made of."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _number(value: Any) -> Any:
    """Refuses true and false, which would be read as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number")
    return value


Number = BeforeValidator(_number)
Positive = Annotated[float, Number, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Number, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Number, Field(ge=1)]


class Section(BaseModel):
    """A frozen part that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
