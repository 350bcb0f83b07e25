"""What a finished run looks like to a person."""
