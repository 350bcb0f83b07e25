"""What every part of a recipe is made of. No torch."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, so a typing error cannot pass as a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
