"""Who may have which certificate and until when: pure, keys passed in."""
