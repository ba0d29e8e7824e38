"""Who may have which certificate and until when; pure, keys and time are handed in."""
