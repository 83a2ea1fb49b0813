"""What a backbone can learn without labels: objectives by skeleton, not by paper; a system is a configuration."""
