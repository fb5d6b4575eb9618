"""Models that give one loss per example, the one loop that trains them, and what they answer."""
