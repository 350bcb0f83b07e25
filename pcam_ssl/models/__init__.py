"""Networks (a timm backbone with its heads), their files, and inference."""
