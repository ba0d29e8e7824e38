"""The ground that every room stands on: clock, tasks, logs, errors, metrics."""
