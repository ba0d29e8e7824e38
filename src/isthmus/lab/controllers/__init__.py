"""What turns wishes into objects: workloads, endpoints, accounts, addresses, and the scheduler."""
