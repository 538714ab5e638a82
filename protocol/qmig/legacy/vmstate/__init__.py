"""Device state: from bytes to named fields."""
