"""What every part of a recipe is made of. No torch."""

from pydantic import BaseModel, ConfigDict

# Bounds of what counts epochs and patches: a slip of the keyboard is refused before it fills a disk or overflows an array's integers.
MOST_EPOCHS = 100_000
MOST_PATCHES = 10**9
# Where float32 still counts; a rate that is merely far too high ends in a loss that is not finite, and the step is named.
LARGEST_RATE = 1e30


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, so a typing error cannot pass as a default; so are `true` as a number and `.inf`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
