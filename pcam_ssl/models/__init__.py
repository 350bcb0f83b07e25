"""Networks: a timm backbone with its heads, and the moving average of its weights."""
