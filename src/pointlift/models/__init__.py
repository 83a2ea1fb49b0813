"""Networks that read points."""
