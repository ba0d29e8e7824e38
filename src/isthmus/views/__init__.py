"""What one proxy may know and nothing more, as frozen slices that all proxies with the same view share."""
